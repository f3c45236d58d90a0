"""Published keys: selection, algorithms, and the fetch schedule."""

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.jwks_schedule import COOLDOWN_S, JwksSchedule
from gateway.auth.keys import KEYS_MAX, parse_key_set
from gateway.auth.token_verifier import TokenVerifier
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode, Malformed, Refusal, SettingsInvalid
from tests.support.issuer import jwk_of, key_set
from tests.support.tokens import sign_by_hand

SECRET = "a secret of no less than thirty-two bytes"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
BY_ALGORITHM: dict[str, Any] = {"RS256": RSA, "PS384": RSA, "ES256": EC, "EdDSA": ED}


def verifier_with(*jwks: Any, **values: Any) -> TokenVerifier:
    made = TokenVerifier(GatewaySettings(amqp_url="amqp://broker/", jwt_jwks_url="https://id.example/keys", **values))
    if jwks:
        made.publish(parse_key_set(key_set(*jwks)))
    return made


def token(key: Any, algorithm: str, kid: str | None = "k", **claims: Any) -> str:
    payload = {"sub": "user_456", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(payload, key, algorithm, headers=None if kid is None else {"kid": kid})


def unauthorized(verifier: TokenVerifier, presented: str) -> None:
    with pytest.raises(Refusal) as caught:
        verifier.verify(presented)
    assert caught.value.code is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("algorithm", sorted(BY_ALGORITHM))
def test_published_key_verifies_tokens_with_its_id(algorithm: str) -> None:
    verifier = verifier_with(jwk_of(RSA, "rsa"), jwk_of(EC, "ec"), jwk_of(ED, "ed"))
    key = BY_ALGORITHM[algorithm]
    kid = {"R": "rsa", "P": "rsa", "E": "ec"}[algorithm[0]] if algorithm != "EdDSA" else "ed"
    assert verifier.verify(token(key, algorithm, kid)).user_id == "user_456"
    for other in {"rsa", "ec", "ed", "unknown"} - {kid}:
        unauthorized(verifier, token(key, algorithm, other))


def test_token_without_key_id_uses_only_key_of_its_algorithm() -> None:
    assert verifier_with(jwk_of(EC, "a"), jwk_of(ED, "b")).verify(token(EC, "ES256", None)).user_id == "user_456"
    second = ec.generate_private_key(ec.SECP256R1())
    unauthorized(verifier_with(jwk_of(EC, "a"), jwk_of(second, "b")), token(EC, "ES256", None))


def test_different_key_under_known_id_is_refused() -> None:
    verifier = verifier_with(jwk_of(EC, "k"))
    unauthorized(verifier, token(ec.generate_private_key(ec.SECP256R1()), "ES256"))


def test_published_key_never_serves_as_secret() -> None:
    """Algorithm confusion over a key set: HS256 signed with the public key."""
    verifier = verifier_with(jwk_of(RSA, "k"), jwt_secret=SECRET)
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    payload = json.dumps({"sub": "user_456", "exp": int(time.time()) + 600, "role": "admin"}).encode()
    for public in (pem, pem.strip(), json.dumps(jwk_of(RSA, "k")).encode(), jwk_of(RSA, "k")["n"].encode(), b""):
        unauthorized(verifier, sign_by_hand({"alg": "HS256", "kid": "k"}, payload, public))
    assert verifier.verify(token(SECRET, "HS256")).user_id == "user_456"


def test_published_secret_is_unusable() -> None:
    published = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "k", "alg": "HS256"}
    verifier = verifier_with(published, jwk_of(EC, "other"))
    unauthorized(verifier, token(b"secret-secret-secret-secret-secret", "HS256"))


def test_key_with_algorithm_serves_no_other() -> None:
    verifier = verifier_with(jwk_of(RSA, "k", alg="RS256"))
    assert verifier.verify(token(RSA, "RS256")).user_id == "user_456"
    unauthorized(verifier, token(RSA, "RS512"))
    unauthorized(verifier, token(RSA, "PS256"))


def test_algorithms_can_be_narrowed() -> None:
    verifier = verifier_with(jwk_of(RSA, "k"), jwk_of(EC, "e"), jwt_algorithms=("ES256",))
    assert verifier.verify(token(EC, "ES256", "e")).user_id == "user_456"
    unauthorized(verifier, token(RSA, "RS256"))


def test_unsupported_algorithm_is_invalid_setting() -> None:
    for name in ("none", "HS256", "RS257"):
        with pytest.raises(SettingsInvalid, match=f"JWT_ALGORITHMS: no configured key supports {name}"):
            verifier_with(jwt_algorithms=("ES256", name))


UNUSABLE: dict[str, Any] = {
    "for encryption": jwk_of(RSA, "k", use="enc"),
    "encrypts": jwk_of(RSA, "k", key_ops=["encrypt"]),
    "algorithm of encryption": jwk_of(RSA, "k", alg="RSA-OAEP"),
    "algorithm of another kind": jwk_of(RSA, "k", alg="ES256"),
    "private": jwk_of(RSA, "k", d="AQAB"),
    "no base64": jwk_of(RSA, "k", n="!"),
    "tiny modulus": jwk_of(RSA, "k", n="AQAB"),
    "no exponent": jwk_of(RSA, "k", e=""),
    "a number for a name": {**jwk_of(RSA, "k"), "kid": 7},
    "unknown curve": jwk_of(EC, "k", crv="secp256k1"),
    "off the curve": jwk_of(EC, "k", x="AQAB"),
    "curve of key exchange": jwk_of(ED, "k", crv="X25519"),
    "short point": jwk_of(ED, "k", x="AQAB"),
    "1024 bits": jwk_of(rsa.generate_private_key(public_exponent=65537, key_size=1024), "k"),
    "no parameters": {"kty": "RSA"},
    "unknown kind": {"kty": "XYZ", "kid": "k"},
    "no kind": {"kid": "k"},
    "list": [],
    "null": None,
    "string": "k",
}


@pytest.mark.parametrize("unusable", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_key_is_skipped(unusable: Any) -> None:
    keys = parse_key_set(key_set(unusable, jwk_of(EC, "good")))
    assert (len(keys), keys.unusable) == (1, 1)
    with pytest.raises(Malformed, match="without a usable key"):
        parse_key_set(key_set(unusable))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"{}", b'{"keys": 5}', b'{"keys": {}}', b'{"keys": []}', b"\xff", b"<html>"),
        *(b'{"keys": [' + b"[" * 100_000, key_set(*[jwk_of(ED, str(number)) for number in range(KEYS_MAX + 1)])),
    ],
    ids=lambda body: str(body[:12]),
)
def test_malformed_key_set_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_key_set(body)


@given(st.binary(max_size=200))
def test_any_body_is_a_key_set_or_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_key_set(body)


def test_lacks_key_only_for_unknown_published_key() -> None:
    verifier = verifier_with(jwk_of(EC, "k"), jwt_secret=SECRET)
    assert not verifier.lacks_key(token(EC, "ES256"))
    assert verifier.lacks_key(token(EC, "ES256", "new"))
    assert verifier.lacks_key(token(ED, "EdDSA", "k"))
    for presented in (token(SECRET, "HS256", "new"), "", "a.b.c", token(EC, "ES256", "new", pad="x" * 9000)):
        assert not verifier.lacks_key(presented)


def test_withdrawn_key_verifies_nothing() -> None:
    verifier = verifier_with(jwk_of(EC, "old"))
    presented = token(EC, "ES256", "old")
    verifier.verify(presented)
    verifier.publish(parse_key_set(key_set(jwk_of(ED, "new"))))
    unauthorized(verifier, presented)


# Fetch schedule -----------------------------------------------------------------------------------------------------


def test_keys_are_fetched_at_once_and_then_periodically() -> None:
    schedule = JwksSchedule(refresh_s=300)
    assert schedule.due_in_s(1000.0) == 0.0
    schedule.begin(1000.0)
    schedule.succeeded()
    assert schedule.due_in_s(1000.0) == 300.0
    assert schedule.due_in_s(1400.0) == 0.0


def test_unknown_key_triggers_one_fetch_per_cooldown() -> None:
    schedule = JwksSchedule(refresh_s=300)
    assert schedule.may_fetch(0.0)
    schedule.begin(0.0)
    assert schedule.may_fetch(0.1)  # joins the running fetch
    schedule.succeeded()
    assert not schedule.may_fetch(COOLDOWN_S - 0.1)
    assert schedule.may_fetch(COOLDOWN_S)


def test_failed_fetch_backs_off_and_keeps_known_keys() -> None:
    schedule = JwksSchedule(refresh_s=300)
    pauses: list[float] = []
    for _ in range(20):
        schedule.begin(0.0)
        schedule.failed()
        pauses.append(schedule.due_in_s(0.0))
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == 60.0
    assert schedule.has_failed and not schedule.has_succeeded
    schedule.begin(0.0)
    schedule.succeeded()
    assert schedule.has_succeeded and not schedule.has_failed
    schedule.begin(0.0)
    schedule.failed()
    assert schedule.has_succeeded and schedule.has_failed
