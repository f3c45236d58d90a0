"""Public keys and the algorithms that each may serve. No I/O.

A key serves only the algorithms of its own kind. Otherwise the public key of RS256, which anyone can read, would
verify as a secret of HS256 (algorithm confusion). Sources: RFC 7517 (key sets), RFC 7518 and RFC 8037 (algorithms), RFC
8725 (3.1, 3.5).
"""

from collections.abc import Mapping
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from shared.errors import Malformed

SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVE_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
PUBLIC_ALGORITHMS = (*RSA_ALGORITHMS, *CURVE_ALGORITHMS.values(), "EdDSA")
RSA_MIN_BITS = 2048
KEYS_MAX = 100

# A key set is untrusted JSON and can make the libraries raise these besides their own errors.
_UNUSABLE = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


def algorithms_of(key: Any) -> tuple[str, ...]:
    """Return the algorithms that a public key may serve. Raises ValueError with the reason if there are none."""
    match key:
        case RSAPublicKey():
            if key.key_size < RSA_MIN_BITS:
                raise ValueError(f"an RSA key must have at least {RSA_MIN_BITS} bits")
            return RSA_ALGORITHMS
        case EllipticCurvePublicKey():
            algorithm = CURVE_ALGORITHMS.get(key.curve.name)
            if algorithm is None:
                raise ValueError(f"no JWT algorithm uses the curve {key.curve.name}")
            return (algorithm,)
        case Ed25519PublicKey() | Ed448PublicKey():
            return ("EdDSA",)
        case _:
            raise ValueError("it is not an RSA, EC or EdDSA public key")


class KeySet:
    """The public keys of one issuer by key id and algorithm. `unusable` counts the keys that were skipped."""

    def __init__(self, keys: Mapping[tuple[str, str], Any], unusable: int = 0) -> None:
        self._keys = keys
        self.unusable = unusable

    def __len__(self) -> int:
        return len({kid for kid, _ in self._keys})

    def find(self, kid: str | None, algorithm: str) -> Any:
        """Return the key, or None. A token without a key id matches only if exactly one key serves its algorithm."""
        if kid is not None:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, served), key in self._keys.items() if served == algorithm]
        return fitting[0] if len(fitting) == 1 else None


class _Jwk(msgspec.Struct, frozen=True):
    kty: str
    kid: str = ""
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    alg: str | None = None
    d: object = None


class _Document(msgspec.Struct, frozen=True):
    keys: tuple[msgspec.Raw, ...]


def parse_key_set(body: bytes) -> KeySet:
    """Parse a JWK set. Unusable keys are skipped and counted (RFC 7517, 5). Raises Malformed if none is usable.

    Secrets (not public), private keys (leaked; they should be rotated), encryption keys, RSA keys that are too short,
    and unknown key types and curves are unusable.
    """
    try:
        entries = msgspec.json.decode(body, type=_Document).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"not a JWK set: {error}") from error
    if len(entries) > KEYS_MAX:
        raise Malformed(f"a JWK set of more than {KEYS_MAX} keys")
    keys: dict[tuple[str, str], Any] = {}
    unusable = 0
    for entry in entries:
        try:
            jwk = msgspec.json.decode(entry, type=_Jwk)
            key, algorithms = _public_key(jwk, entry)
        except (msgspec.MsgspecError, *_UNUSABLE):
            unusable += 1
            continue
        for algorithm in algorithms:
            keys.setdefault((jwk.kid, algorithm), key)
    if not keys:
        raise Malformed(f"a JWK set without a usable key ({unusable} unusable)")
    return KeySet(keys, unusable)


def _public_key(jwk: _Jwk, entry: msgspec.Raw) -> tuple[Any, tuple[str, ...]]:
    if jwk.kty not in ("RSA", "EC", "OKP") or jwk.d is not None:
        raise ValueError("it is not a public key")
    if jwk.use != "sig" or "verify" not in jwk.key_ops:
        raise ValueError("it does not verify signatures")
    if jwk.alg is not None and jwk.alg not in PUBLIC_ALGORITHMS:
        raise ValueError("its algorithm is not supported")
    key = jwt.PyJWK(msgspec.json.decode(entry, type=dict[str, Any])).key
    algorithms = algorithms_of(key)
    if jwk.alg is None:
        return key, algorithms
    if jwk.alg not in algorithms:
        raise ValueError("its algorithm does not match the key type")
    return key, (jwk.alg,)
