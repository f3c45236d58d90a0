"""Who is it? Tokens are JWTs (RFC 7519); `sub` is the user id, `exp` is required. Source: protocol.md, «Token»."""

from pathlib import Path
from typing import Annotated, Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.identity import Identity as Identity
from gateway.settings import GatewaySettings
from shared.commands import Caller
from shared.errors import ErrorCode, Refusal, SettingsInvalid
from shared.protocol import UserProfile
from shared.validation import Id, detail_of

TOKEN_MAX_BYTES = 8192
SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
LEEWAY_S = 0
EXPIRES_MAX_MS = 253_402_300_799_000  # the end of the year 9999: an `exp` in milliseconds lies beyond

Name = Annotated[str, msgspec.Meta(max_length=200)]


class _Claims(msgspec.Struct, frozen=True, rename="camel"):
    """The claims that we read; others are passed over."""

    sub: Id
    exp: float
    iat: float | None = None
    first_name: Name = ""
    last_name: Name = ""
    avatar: Annotated[str, msgspec.Meta(max_length=2000)] | None = None
    role: str | None = None
    communities: list[Id] | None = None


class Authenticator:
    """Verifies tokens with one secret or one public key; each is only ever used with algorithms of its own kind."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._keys: dict[str, Any] = {}
        problems: list[str] = []
        if settings.jwt_secret is not None:
            self._keys.update(dict.fromkeys(SECRET_ALGORITHMS[:1], settings.jwt_secret))
        if settings.jwt_public_key_file is not None:
            try:
                key = load_pem_public_key(Path(settings.jwt_public_key_file).read_bytes())
                self._keys.update(dict.fromkeys(_algorithms_of(key), key))
            except (OSError, ValueError, TypeError) as error:
                problems.append(f"JWT_PUBLIC_KEY_FILE: {settings.jwt_public_key_file!r} cannot be used: {error}")
        if settings.jwt_algorithms and not problems:
            if unfit := [name for name in settings.jwt_algorithms if not self._fits(name)]:
                problems.append(f"JWT_ALGORITHMS: no configured key serves {', '.join(unfit)}")
            self._keys = {name: self._key_for(name) for name in settings.jwt_algorithms if self._fits(name)}
        if problems:
            raise SettingsInvalid(problems)

    def _fits(self, algorithm: str) -> bool:
        if algorithm in SECRET_ALGORITHMS:
            return self._settings.jwt_secret is not None
        return algorithm in self._keys

    def _key_for(self, algorithm: str) -> Any:
        return self._settings.jwt_secret if algorithm in SECRET_ALGORITHMS else self._keys[algorithm]

    def verify(self, token: str) -> Identity:
        """The token's identity. Raises Refusal: TOKEN_EXPIRED or UNAUTHORIZED, with the reason."""
        if len(token) > TOKEN_MAX_BYTES:
            raise _unauthorized(f"the token is longer than {TOKEN_MAX_BYTES} bytes")
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            if not isinstance(algorithm, str) or algorithm not in self._keys:
                raise _unauthorized("the token's algorithm is not accepted")
            payload = jwt.decode(
                token,
                self._keys[algorithm],
                algorithms=[algorithm],
                audience=self._settings.jwt_audience,
                issuer=self._settings.jwt_issuer,
                leeway=LEEWAY_S,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": self._settings.jwt_audience is not None,
                    "verify_iat": False,  # an issuer's clock may be ahead of ours; `exp` and `nbf` say what holds
                },
            )
        except jwt.ExpiredSignatureError as error:
            raise Refusal(ErrorCode.TOKEN_EXPIRED, "the token has expired") from error
        except jwt.PyJWTError as error:
            raise _unauthorized(f"the token is not valid: {error}") from error
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise _unauthorized("the token is not valid") from error
        return _identity(payload)


def _algorithms_of(key: Any) -> tuple[str, ...]:
    match key:
        case RSAPublicKey():
            return ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
        case EllipticCurvePublicKey():
            algorithm = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}.get(key.curve.name)
            if algorithm is None:
                raise ValueError(f"there is no JWT algorithm for the curve {key.curve.name}")
            return (algorithm,)
        case Ed25519PublicKey() | Ed448PublicKey():
            return ("EdDSA",)
        case _:
            raise ValueError("it is neither an RSA, an EC nor an Ed25519 key")


def _identity(payload: dict[str, Any]) -> Identity:
    try:
        claims = msgspec.convert(payload, _Claims)
    except msgspec.ValidationError as error:
        detail = detail_of(error)
        raise _unauthorized(f"the token's claim {detail.field}: {detail.reason}") from error
    profile = UserProfile(
        first_name=_well_formed(claims.first_name),
        last_name=_well_formed(claims.last_name),
        avatar=None if claims.avatar is None else _well_formed(claims.avatar),
    )
    return Identity(
        caller=Caller(
            user_id=claims.sub,
            is_admin=claims.role == "admin",
            profile=profile,
            issued_at_ms=round(max(claims.iat or 0, 0) * 1000),
        ),
        expires_at_ms=round(min(claims.exp * 1000, EXPIRES_MAX_MS)),
        communities=None if claims.communities is None else frozenset(claims.communities),
    )


def _well_formed(text: str) -> str:
    """JSON may carry half a surrogate pair, as of a name that was cut off inside an emoji; UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _unauthorized(message: str) -> Refusal:
    return Refusal(ErrorCode.UNAUTHORIZED, message)
