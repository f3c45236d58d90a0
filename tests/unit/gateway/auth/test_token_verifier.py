"""Token verification: accepted tokens, refused tokens, and the separation of keys and algorithms."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.token_verifier import EXPIRES_MAX_MS, TOKEN_MAX_BYTES, TokenVerifier
from gateway.settings import GatewaySettings
from shared.encoding import to_json
from shared.errors import ErrorCode, Refusal, SettingsInvalid
from shared.protocol.server_frames import UserProfile
from shared.times import to_iso
from tests.support.tokens import part, sign_by_hand

SECRET = "a secret of no less than thirty-two bytes"
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
KEYS["PS512"] = KEYS["RS256"]
A_DAY_S = 86_400  # outlives the time between collection, when parameters are built, and the test


def settings(**values: Any) -> GatewaySettings:
    return GatewaySettings(amqp_url="amqp://broker/", **values)


def pem(key: Any) -> bytes:
    """Return the public half of a private key as PEM."""
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


@pytest.fixture
def key_file(tmp_path: Path) -> Callable[[bytes], str]:
    def write(content: bytes) -> str:
        path = tmp_path / "key.pem"
        path.write_bytes(content)
        return str(path)

    return write


def claims(**others: Any) -> dict[str, Any]:
    return {"sub": "user_456", "exp": int(time.time()) + A_DAY_S, **others}


def token(payload: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(payload, key, algorithm)


def raw_token(header: dict[str, Any], payload: bytes, key: bytes = SECRET.encode()) -> str:
    return sign_by_hand(header, payload, key)


def by_secret(**values: Any) -> TokenVerifier:
    return TokenVerifier(settings(jwt_secret=SECRET, **values))


def refused(verifier: TokenVerifier, presented: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        verifier.verify(presented)
    return caught.value


def unauthorized(verifier: TokenVerifier, presented: str) -> None:
    refusal = refused(verifier, presented)
    assert refusal.code is ErrorCode.UNAUTHORIZED
    assert SECRET not in refusal.message


# Accepted -----------------------------------------------------------------------------------------------------------


def test_token_signed_with_secret_yields_identity() -> None:
    payload = claims(
        iat=1_700_000_000,
        firstName="John",
        lastName="Doe",
        avatar="https://example.org/a.png",
        role="admin",
        communities=["community_789"],
        scope="whatever else",
    )
    identity = by_secret().verify(token(payload))
    assert identity.user_id == identity.caller.user_id == "user_456"
    assert identity.caller.is_admin
    assert identity.caller.issued_at_ms == 1_700_000_000_000
    assert identity.caller.profile == UserProfile(
        first_name="John", last_name="Doe", avatar="https://example.org/a.png"
    )
    assert identity.expires_at_ms == payload["exp"] * 1000
    assert identity.communities == frozenset({"community_789"})


def test_only_sub_and_exp_are_required() -> None:
    identity = by_secret().verify(token(claims()))
    assert not identity.caller.is_admin
    assert identity.caller.profile == UserProfile()
    assert identity.communities is None
    assert identity.caller.issued_at_ms == 0


@pytest.mark.parametrize("role", ["moderator", "Admin", "", None])
def test_only_role_admin_grants_admin(role: str | None) -> None:
    assert not by_secret().verify(token(claims(role=role))).caller.is_admin


def test_token_with_empty_communities_allows_none() -> None:
    assert by_secret().verify(token(claims(communities=[]))).communities == frozenset()


@pytest.mark.parametrize("algorithm", sorted(KEYS))
def test_public_key_file_verifies_its_own_algorithms(algorithm: str, key_file: Callable[[bytes], str]) -> None:
    verifier = TokenVerifier(settings(jwt_public_key_file=key_file(pem(KEYS[algorithm]))))
    assert verifier.verify(token(claims(), KEYS[algorithm], algorithm)).user_id == "user_456"


def test_secret_and_public_key_work_together(key_file: Callable[[bytes], str]) -> None:
    verifier = by_secret(jwt_public_key_file=key_file(pem(KEYS["RS256"])))
    assert verifier.verify(token(claims())).user_id == "user_456"
    assert verifier.verify(token(claims(), KEYS["RS256"], "RS256")).user_id == "user_456"


def test_every_secret_verifies() -> None:
    secrets = [SECRET, "its predecessor " * 3, "the first secret " * 3]
    verifier = TokenVerifier(settings(jwt_secret=", ".join(secrets)))
    for secret in map(str.strip, secrets):
        assert verifier.verify(token(claims(), secret)).user_id == "user_456"
        expired = refused(verifier, token(claims(exp=int(time.time()) - 5), secret))
        assert expired.code is ErrorCode.TOKEN_EXPIRED
    unauthorized(verifier, token(claims(), "a secret that no gateway was given"))


def test_exp_in_milliseconds_is_capped() -> None:
    identity = by_secret().verify(token(claims(exp=int(time.time()) * 1000)))
    assert to_iso(identity.expires_at_ms).startswith("9999-")


def test_name_cut_inside_emoji_is_encodable() -> None:
    payload = json.dumps(claims(firstName="Jo\ud83d", lastName="\ude00", avatar="\ud83d")).encode()
    identity = by_secret().verify(raw_token({"alg": "HS256", "typ": "JWT"}, payload))
    assert json.loads(to_json(identity.caller))["profile"] == {"firstName": "Jo?", "lastName": "?", "avatar": "?"}


@pytest.mark.parametrize("sub", ["o'brien@example.com", "corp/ada", "José", "a&b@example.com", "a b, c", "x" * 128])
def test_subject_of_any_alphabet_is_a_user(sub: str) -> None:
    assert by_secret().verify(token(claims(sub=sub))).user_id == sub


@pytest.mark.parametrize(
    ("given_claims", "shown"),
    [
        ({"firstName": None, "lastName": None, "avatar": None, "role": None}, UserProfile()),
        ({"firstName": 5, "lastName": ["Doe"], "avatar": {}}, UserProfile()),
        ({"firstName": "x" * 201, "lastName": "Doe"}, UserProfile(first_name="x" * 200, last_name="Doe")),
        ({"firstName": "Ada", "avatar": "https://a.example/" + "x" * 2000}, UserProfile(first_name="Ada")),
        ({"avatar": ""}, UserProfile()),
    ],
)
def test_claim_that_only_decorates_never_refuses(given_claims: dict[str, Any], shown: UserProfile) -> None:
    assert by_secret().verify(token(claims(**given_claims))).caller.profile == shown


@pytest.mark.parametrize("name", ["iat", "communities"])
def test_null_claim_counts_as_absent(name: str) -> None:
    assert by_secret().verify(token(claims(**{name: None}))) == by_secret().verify(token(claims()))


def test_community_with_an_odd_name_locks_nobody_out() -> None:
    names = ["Forex, and more", "a\tb", "", "x" * 200]
    assert by_secret().verify(token(claims(communities=names))).communities == frozenset(names)


@pytest.mark.parametrize("iat", [1e300, 1e18, -1e300, -1])
def test_time_of_issue_beyond_the_calendar_is_capped(iat: float) -> None:
    identity = by_secret().verify(token(claims(iat=iat)))
    assert json.loads(to_json(identity.caller))["issuedAtMs"] in (0, EXPIRES_MAX_MS)


# Refused ------------------------------------------------------------------------------------------------------------


def test_expired_token_has_its_own_code() -> None:
    assert refused(by_secret(), token(claims(exp=int(time.time()) - 1))).code is ErrorCode.TOKEN_EXPIRED


ABSENT = "absent"
IN_2100_S = 4_102_444_800


@pytest.mark.parametrize(
    "wrong",
    [
        {"exp": ABSENT},
        {"sub": ABSENT},
        {"nbf": IN_2100_S},
        {"exp": None},
        {"exp": [1]},
        {"exp": "soon"},
        {"exp": str(IN_2100_S)},
        {"exp": 10**400},
        {"sub": ""},
        {"sub": " a"},
        {"sub": "a\n"},
        {"sub": "a\u0085b"},
        {"sub": "me"},
        {"sub": "deleted-user"},
        {"sub": "system:gateway"},
        {"sub": "x" * 129},
        {"role": ["admin"]},
        {"communities": "community_789"},
        {"communities": [5]},
        {"iat": "then"},
        {"iat": []},
        {"iat": True},
        {"iat": math.inf},
        {"iat": -math.inf},
        {"iat": math.nan},
        {"iat": 10**400},
        {"exp": math.inf},
        {"exp": math.nan},
        {"nbf": math.inf},
        {"nbf": math.nan},
    ],
    ids=lambda wrong: ",".join(f"{key}={str(value)[:16]}" for key, value in wrong.items()),
)
def test_signed_token_with_invalid_claims_is_refused(wrong: dict[str, Any]) -> None:
    payload = {key: value for key, value in claims(**wrong).items() if value is not ABSENT}
    unauthorized(by_secret(), raw_token({"alg": "HS256", "typ": "JWT"}, json.dumps(payload).encode()))


def test_non_string_sub_is_refused() -> None:
    for sub in (5, None, True, ["user_456"], {"id": "user_456"}):
        unauthorized(by_secret(), raw_token({"alg": "HS256"}, json.dumps(claims(sub=sub)).encode()))


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'"user"', b"\xff", b'{"a":' * 1000, b"null"])
def test_signed_payload_must_be_object(payload: bytes) -> None:
    unauthorized(by_secret(), raw_token({"alg": "HS256"}, payload))


def test_wrong_key_is_refused() -> None:
    unauthorized(by_secret(), token(claims(), "another secret of more than thirty-two bytes"))


def test_tampered_payload_is_refused() -> None:
    header, _, signature = token(claims()).split(".")
    unauthorized(by_secret(), f"{header}.{part(json.dumps(claims(role='admin')).encode())}.{signature}")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 5, ["HS256"], "HS1024"])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_unsigned_token_is_refused(alg: object, signature: str) -> None:
    header = part(json.dumps({"alg": alg, "typ": "JWT"}).encode())
    unauthorized(by_secret(), f"{header}.{part(json.dumps(claims()).encode())}.{signature}")


def test_token_without_alg_is_refused() -> None:
    unauthorized(by_secret(), raw_token({"typ": "JWT"}, json.dumps(claims()).encode()))


@pytest.mark.parametrize("algorithm", sorted(KEYS))
@pytest.mark.parametrize("with_secret", [False, True], ids=["key only", "key and secret"])
def test_public_key_never_serves_as_secret(algorithm: str, with_secret: bool, key_file: Callable[[bytes], str]) -> None:
    """Algorithm confusion: HS256 signed with the public PEM."""
    public = pem(KEYS[algorithm])
    values = {"jwt_secret": SECRET} if with_secret else {}
    verifier = TokenVerifier(settings(jwt_public_key_file=key_file(public), **values))
    for key in (public, public.strip(), public.replace(b"\n", b"\r\n")):
        forged = raw_token({"alg": "HS256", "typ": "JWT"}, json.dumps(claims(role="admin")).encode(), key)
        unauthorized(verifier, forged)


def test_secret_serves_only_its_own_algorithms() -> None:
    unauthorized(by_secret(), token(claims(), KEYS["RS256"], "RS256"))
    unauthorized(by_secret(), token(claims(), SECRET * 2, "HS512"))


def test_key_of_another_curve_is_refused(key_file: Callable[[bytes], str]) -> None:
    verifier = TokenVerifier(settings(jwt_public_key_file=key_file(pem(KEYS["ES256"]))))
    unauthorized(verifier, token(claims(), KEYS["ES384"], "ES384"))
    unauthorized(verifier, token(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256"))


def test_keys_embedded_in_token_are_ignored() -> None:
    theirs = b"the key of an attacker, thirty-two bytes and more"
    jwk = {"kty": "oct", "k": part(theirs)}
    header = {"alg": "HS256", "jwk": jwk, "jku": "https://evil.example/keys", "kid": "../../dev/null", "x5u": "x"}
    unauthorized(by_secret(), raw_token(header, json.dumps(claims()).encode(), theirs))


def test_oversized_token_is_refused_before_parsing() -> None:
    presented = token(claims(padding="x" * TOKEN_MAX_BYTES))
    assert "longer than" in refused(by_secret(), presented).message


@pytest.mark.parametrize("presented", ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "Bearer x", "\ud83d", "\x00"])
def test_malformed_token_is_refused(presented: str) -> None:
    unauthorized(by_secret(), presented)


VERIFIER = TokenVerifier(settings(jwt_secret=SECRET))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
claim_names = [
    "sub",
    "exp",
    "iat",
    "nbf",
    "aud",
    "iss",
    "jti",
    "firstName",
    "lastName",
    "avatar",
    "role",
    "communities",
]


@given(st.text())
def test_arbitrary_text_is_refused(presented: str) -> None:
    unauthorized(VERIFIER, presented)


@given(st.dictionaries(st.sampled_from(claim_names), json_values))
def test_signed_claims_yield_encodable_identity_or_refusal(changed: dict[str, Any]) -> None:
    presented = raw_token({"alg": "HS256"}, json.dumps(claims(**changed)).encode())
    try:
        identity = VERIFIER.verify(presented)
    except Refusal as refusal:
        assert refusal.code in {ErrorCode.UNAUTHORIZED, ErrorCode.TOKEN_EXPIRED}
        return
    to_json(identity.caller)
    to_iso(identity.expires_at_ms)


# Audience and issuer ------------------------------------------------------------------------------------------------


def test_audience_and_issuer_are_checked_when_set() -> None:
    verifier = by_secret(jwt_audience="realtime", jwt_issuer="https://id.example")
    good = claims(aud="realtime", iss="https://id.example")
    assert verifier.verify(token(good)).user_id == "user_456"
    assert verifier.verify(token({**good, "aud": ["other", "realtime"]})).user_id == "user_456"
    wrongs: list[dict[str, Any]] = [{"aud": "other"}, {"iss": "https://evil.example"}, {"aud": []}, {"iss": ""}]
    for wrong in wrongs:
        unauthorized(verifier, token({**good, **wrong}))
    unauthorized(verifier, token(claims(iss="https://id.example")))
    unauthorized(verifier, token(claims(aud="realtime")))


def test_audience_claim_is_ignored_when_unconfigured() -> None:
    assert by_secret().verify(token(claims(aud="other", iss="anyone"))).user_id == "user_456"


# Settings -----------------------------------------------------------------------------------------------------------


def problems(**values: Any) -> str:
    with pytest.raises(SettingsInvalid) as caught:
        TokenVerifier(settings(**values))
    return "\n".join(caught.value.problems)


def test_algorithms_can_be_restricted(key_file: Callable[[bytes], str]) -> None:
    verifier = by_secret(jwt_public_key_file=key_file(pem(KEYS["RS256"])), jwt_algorithms=("RS256",))
    assert verifier.verify(token(claims(), KEYS["RS256"], "RS256")).user_id == "user_456"
    unauthorized(verifier, token(claims()))
    unauthorized(verifier, token(claims(), KEYS["RS256"], "PS512"))


def test_other_secret_algorithms_work_when_configured() -> None:
    long_secret = SECRET * 2
    verifier = TokenVerifier(settings(jwt_secret=long_secret, jwt_algorithms=("HS512",)))
    assert verifier.verify(token(claims(), long_secret, "HS512")).user_id == "user_456"
    unauthorized(verifier, token(claims(), long_secret))


@pytest.mark.parametrize("name", ["none", "RS256", "HS1024"])
def test_algorithm_without_key_is_invalid_setting(name: str) -> None:
    assert f"JWT_ALGORITHMS: no configured key supports {name}" in problems(jwt_secret=SECRET, jwt_algorithms=(name,))


def test_secret_algorithms_need_secret(key_file: Callable[[bytes], str]) -> None:
    file = key_file(pem(KEYS["RS256"]))
    assert "JWT_ALGORITHMS" in problems(jwt_public_key_file=file, jwt_algorithms=("HS256",))


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_malformed_public_key_file_is_invalid_setting(content: bytes, key_file: Callable[[bytes], str]) -> None:
    assert "JWT_PUBLIC_KEY_FILE" in problems(jwt_public_key_file=key_file(content))


def test_missing_key_file_is_invalid_setting(tmp_path: Path) -> None:
    assert "JWT_PUBLIC_KEY_FILE" in problems(jwt_public_key_file=str(tmp_path / "none.pem"))


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256K1()), dsa.generate_private_key(1024)], ids=["secp256k1", "DSA"]
)
def test_key_without_jwt_algorithm_is_invalid_setting(key: Any, key_file: Callable[[bytes], str]) -> None:
    assert "JWT_PUBLIC_KEY_FILE" in problems(jwt_public_key_file=key_file(pem(key)))


def test_private_key_file_is_invalid_setting(key_file: Callable[[bytes], str]) -> None:
    private = KEYS["ES256"].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    found = problems(jwt_public_key_file=key_file(private))
    assert "JWT_PUBLIC_KEY_FILE" in found
    assert private.decode().splitlines()[1] not in found
