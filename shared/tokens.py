"""Tokens signed for development and for operators. `gateway.auth.token_verifier` verifies them."""

from collections.abc import Mapping
from dataclasses import dataclass

import jwt

from shared.process.settings import parts_of

ALGORITHM = "HS256"
DEFAULT_TTL_S = 86_400


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """The user of a token, and the claims about that user. Empty fields are left out of the token."""

    user_id: str
    first_name: str = ""
    last_name: str = ""
    avatar: str = ""
    role: str = ""
    communities: tuple[str, ...] = ()
    ttl_s: int = DEFAULT_TTL_S


def sign(request: TokenRequest, secret: str, rules: Mapping[str, str], now_s: int) -> str:
    """Return the token, HS256, signed with the first secret of a JWT_SECRET.

    `rules` may hold the JWT_ISSUER and JWT_AUDIENCE that the services require.
    """
    claims = {
        "sub": request.user_id,
        "firstName": request.first_name,
        "lastName": request.last_name,
        "avatar": request.avatar,
        "role": request.role,
        "communities": list(request.communities),
        "iss": rules.get("JWT_ISSUER"),
        "aud": rules.get("JWT_AUDIENCE"),
    }
    times = {"iat": now_s, "exp": now_s + request.ttl_s}
    payload = {name: value for name, value in claims.items() if value} | times
    return jwt.encode(payload, parts_of(secret)[0], algorithm=ALGORITHM)
