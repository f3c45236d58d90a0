"""Token verification. Tokens are JWTs (RFC 7519): `sub` is the user id and `exp` is required."""

import math
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.auth.identity import Identity
from gateway.auth.keys import PUBLIC_ALGORITHMS, SECRET_ALGORITHMS, KeySet, algorithms_of
from gateway.settings import GatewaySettings
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal, SettingsInvalid
from shared.protocol.server_frames import UserProfile
from shared.protocol.validation import UserId, detail_of, shown_avatar, shown_name

TOKEN_MAX_BYTES = 8192
HEADERS_KEPT = 64
LEEWAY_S = 0
EXPIRES_MAX_MS = 253_402_300_799_000  # the end of the year 9999, so that an `exp` given in milliseconds is capped

# A hostile token can make the libraries raise these besides their own errors.
_HOSTILE_TOKEN_ERRORS = (ValueError, TypeError, OverflowError, RecursionError)


class _Claims(msgspec.Struct, frozen=True, rename="camel"):
    """The claims that the gateway reads. Unknown claims are ignored, and null counts as absent.

    Only invalid claims that decide on access are refused; for names and picture see `_profile`. A community with an
    invalid id grants no access, because no client can name it.
    """

    sub: UserId
    exp: float
    iat: float | None = None
    first_name: Any = None
    last_name: Any = None
    avatar: Any = None
    role: str | None = None
    communities: list[str] | None = None


class TokenVerifier:
    """Verifies tokens with a shared secret, one public key, or a published key set. Never blocks.

    Each key serves only the algorithms of its own kind; see `gateway.auth.keys`.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._keys: dict[str, tuple[Any, ...]] = {}  # configured keys by algorithm
        self._published = KeySet({})
        self._published_algorithms = frozenset(PUBLIC_ALGORITHMS if settings.jwt_jwks_url is not None else ())
        problems: list[str] = []
        if settings.jwt_secrets:
            self._keys.update(dict.fromkeys(SECRET_ALGORITHMS[:1], settings.jwt_secrets))
        if settings.jwt_public_key_file is not None:
            try:
                key = load_pem_public_key(Path(settings.jwt_public_key_file).read_bytes())
                self._keys.update(dict.fromkeys(algorithms_of(key), (key,)))
            except (OSError, ValueError, TypeError) as error:
                problems.append(f"JWT_PUBLIC_KEY_FILE: {settings.jwt_public_key_file!r} cannot be used: {error}")
        if settings.jwt_algorithms and not problems:
            problems += self._narrow(settings.jwt_algorithms)
        if problems:
            raise SettingsInvalid(problems)

    def _narrow(self, algorithms: tuple[str, ...]) -> list[str]:
        """Keep only these algorithms; return the invalid ones as problems."""
        if self._settings.jwt_secrets:
            self._keys.update(dict.fromkeys(SECRET_ALGORITHMS, self._settings.jwt_secrets))
        unfit = [name for name in algorithms if name not in self._keys and name not in self._published_algorithms]
        self._keys = {name: key for name, key in self._keys.items() if name in algorithms}
        self._published_algorithms &= set(algorithms)
        return [f"JWT_ALGORITHMS: no configured key supports {', '.join(unfit)}"] if unfit else []

    def publish(self, keys: KeySet) -> None:
        """Replace the issuer's keys. Keys missing from the new set no longer verify anything."""
        self._published = keys

    def lacks_key(self, token: str) -> bool:
        """Return whether the token names a key that the issuer may have published since the last fetch."""
        if not self._published_algorithms or len(token) > TOKEN_MAX_BYTES:
            return False
        try:
            header = _header_of(token)
            return header.get("alg") in self._published_algorithms and not self._keys_for(header)
        except (jwt.PyJWTError, *_HOSTILE_TOKEN_ERRORS):
            return False

    def _keys_for(self, header: dict[str, Any]) -> tuple[Any, ...]:
        """Return the keys that may have signed a token with this header; empty if none is known yet.

        Raises UNAUTHORIZED if no key can ever serve it.
        """
        algorithm, kid = header.get("alg"), header.get("kid")
        if isinstance(algorithm, str) and algorithm in self._keys:
            return self._keys[algorithm]
        if isinstance(algorithm, str) and algorithm in self._published_algorithms:
            published = self._published.find(kid, algorithm)
            return () if published is None else (published,)
        raise _unauthorized("the token's algorithm is not accepted")

    def verify(self, token: str) -> Identity:
        """Return the token's identity. Raises Refusal (TOKEN_EXPIRED or UNAUTHORIZED) with the reason."""
        if len(token) > TOKEN_MAX_BYTES:
            raise _unauthorized(f"the token is longer than {TOKEN_MAX_BYTES} bytes")
        try:
            header = _header_of(token)
            keys = self._keys_for(header)
            if not keys:
                raise _unauthorized("the token's key is unknown")
            payload = self._decode(token, header["alg"], keys)
        except jwt.ExpiredSignatureError as error:
            raise Refusal(ErrorCode.TOKEN_EXPIRED, "the token has expired") from error
        except jwt.PyJWTError as error:
            raise _unauthorized(f"the token is invalid: {error}") from error
        except _HOSTILE_TOKEN_ERRORS as error:
            raise _unauthorized("the token is invalid") from error
        return _identity(payload)

    def _decode(self, token: str, algorithm: str, keys: tuple[Any, ...]) -> dict[str, Any]:
        """Return the payload if one of the keys has signed the token. Raises PyJWTError."""
        for key in keys[:-1]:
            with suppress(jwt.InvalidSignatureError):
                return self._decode(token, algorithm, (key,))
        return jwt.decode(
            token,
            keys[-1],
            algorithms=[algorithm],
            audience=self._settings.jwt_audience,
            issuer=self._settings.jwt_issuer,
            leeway=LEEWAY_S,
            options={
                "require": ["exp", "sub"],
                "verify_aud": self._settings.jwt_audience is not None,
                "verify_iat": False,  # an issuer's clock may be ahead of this one; `exp` and `nbf` decide
            },
        )


def _header_of(token: str) -> dict[str, Any]:
    """Return the header of a token; it is cached and shared, so do not modify it. Raises PyJWTError.

    The tokens of an issuer share their headers, and PyJWT would decode all three parts of each: 17 us of 70.
    """
    return _parsed_header(token.partition(".")[0])


@lru_cache(maxsize=HEADERS_KEPT)
def _parsed_header(segment: str) -> dict[str, Any]:
    return jwt.get_unverified_header(f"{segment}.e30.")  # with an empty payload and no signature


def _identity(payload: dict[str, Any]) -> Identity:
    try:
        claims = msgspec.convert(payload, _Claims)
    except msgspec.ValidationError as error:
        detail = detail_of(error)
        raise _unauthorized(f"the token's claim {detail.field}: {detail.reason}") from error
    except _HOSTILE_TOKEN_ERRORS as error:  # an integer that no float can hold
        raise _unauthorized("the token's claims are invalid") from error
    issued_at_s = claims.iat or 0.0
    if not math.isfinite(issued_at_s):
        raise _unauthorized("the token's claim iat is not a time")
    return Identity(
        caller=Caller(
            user_id=claims.sub,
            is_admin=claims.role == "admin",
            is_service=claims.role == "service",
            profile=_profile(claims),
            issued_at_ms=round(min(max(issued_at_s, 0.0) * 1000, EXPIRES_MAX_MS)),
        ),
        expires_at_ms=round(min(claims.exp * 1000, EXPIRES_MAX_MS)),
        communities=None if claims.communities is None else frozenset(claims.communities),
    )


def _profile(claims: _Claims) -> UserProfile:
    """Return the profile to show, for claims of any content."""
    return UserProfile(
        first_name=shown_name(_text_of(claims.first_name)),
        last_name=shown_name(_text_of(claims.last_name)),
        avatar=shown_avatar(_text_of(claims.avatar)),
    )


def _text_of(claim: object) -> str:
    return _well_formed(claim) if isinstance(claim, str) else ""


def _well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON can carry (a name cut inside an emoji) and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _unauthorized(message: str) -> Refusal:
    return Refusal(ErrorCode.UNAUTHORIZED, message)
