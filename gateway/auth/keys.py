"""Keys, and the algorithms that each may serve; no I/O.

A key serves the algorithms of its own kind and no other: else the public key of RS256, which everybody may read, would
verify as a secret of HS256. Sources: RFC 7517 (key sets), RFC 7518 and RFC 8037 (algorithms), RFC 8725 (3.1, 3.5).
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

# What a key of a set may make the libraries raise, besides their own errors: it is somebody else's JSON.
_UNUSABLE = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


def algorithms_of(key: Any) -> tuple[str, ...]:
    """The algorithms that a public key may serve. Raises ValueError with the reason if there are none."""
    match key:
        case RSAPublicKey():
            if key.key_size < RSA_MIN_BITS:
                raise ValueError(f"an RSA key must have {RSA_MIN_BITS} bits at least")
            return RSA_ALGORITHMS
        case EllipticCurvePublicKey():
            algorithm = CURVE_ALGORITHMS.get(key.curve.name)
            if algorithm is None:
                raise ValueError(f"there is no JWT algorithm for the curve {key.curve.name}")
            return (algorithm,)
        case Ed25519PublicKey() | Ed448PublicKey():
            return ("EdDSA",)
        case _:
            raise ValueError("it is neither an RSA, an EC nor an Ed25519 public key")


class KeySet:
    """The public keys of one issuer, by key id and algorithm."""

    def __init__(self, keys: Mapping[tuple[str, str], Any], unusable: int = 0) -> None:
        self._keys = keys
        self.unusable = unusable

    def __len__(self) -> int:
        return len({kid for kid, _ in self._keys})

    def find(self, kid: str | None, algorithm: str) -> Any:
        """The key, or None. A token without a key id gets the only key that serves its algorithm, if it is the only."""
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
    """Read a JWK set. Keys that cannot be used are passed over and counted (RFC 7517, 5). Raises Malformed if none can.

    Not used: secrets (they are not public), private keys (they were, and should be rotated), keys for encryption,
    small RSA keys, unknown kinds and curves.
    """
    try:
        entries = msgspec.json.decode(body, type=_Document).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"no JWK set: {error}") from error
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
        raise ValueError("its algorithm is not one of ours")
    key = jwt.PyJWK(msgspec.json.decode(entry, type=dict[str, Any])).key
    algorithms = algorithms_of(key)
    if jwk.alg is None:
        return key, algorithms
    if jwk.alg not in algorithms:
        raise ValueError("its algorithm is of another kind")
    return key, (jwk.alg,)
