"""Development tokens: a token for any name, without proof of identity. Used only in DEV_MODE."""

import hashlib
import re
import unicodedata
from typing import Annotated

import jwt
import msgspec

from gateway.settings import GatewaySettings
from shared.protocol.validation import VISIBLE_PATTERN
from shared.times import to_iso

TTL_MS = 12 * 3_600_000
ALGORITHM = "HS256"
SLUG_MAX = 40

PersonName = Annotated[str, msgspec.Meta(min_length=1, max_length=80, pattern=VISIBLE_PATTERN, description="not blank")]


class DevToken(msgspec.Struct, frozen=True, rename="camel"):
    """A token and its claims."""

    token: str
    user_id: str
    first_name: str
    last_name: str
    expires_at: str


def can_sign(settings: GatewaySettings) -> bool:
    """Return whether the gateway has a secret and accepts tokens signed with it."""
    return bool(settings.jwt_secrets) and (not settings.jwt_algorithms or ALGORITHM in settings.jwt_algorithms)


def sign(name: str, settings: GatewaySettings, now_ms: int) -> DevToken:
    """Return a token for a name, valid for 12 hours, with the issuer and audience that the gateway requires."""
    first, _, last = " ".join(name.split()).partition(" ")
    user_id = user_id_of(name)
    claims: dict[str, object] = {
        "sub": user_id,
        "firstName": first,
        "lastName": last,
        "iat": now_ms // 1000,
        "exp": (now_ms + TTL_MS) // 1000,
    }
    wanted = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience}
    claims |= {claim: value for claim, value in wanted.items() if value}
    token = jwt.encode(claims, settings.jwt_secrets[0], algorithm=ALGORITHM)
    return DevToken(token, user_id, first, last, to_iso(now_ms + TTL_MS))


def user_id_of(name: str) -> str:
    """Return the user id of a name: `user_ada_lovelace` for `Ada Lovelace`.

    Unless the name consists of at most 40 letters a to z (in any case), digits and blanks, a hash of it is appended.
    """
    plain = " ".join(name.split()).casefold()
    letters = unicodedata.normalize("NFKD", plain)
    slug = re.sub(r"[^a-z0-9]+", "_", letters).strip("_")
    if slug.replace("_", " ") == plain and len(slug) <= SLUG_MAX:
        return f"user_{slug}"
    digest = hashlib.sha256(plain.encode(errors="replace")).hexdigest()[:8]
    return f"user_{slug[:SLUG_MAX]}_{digest}" if slug else f"user_{digest}"
