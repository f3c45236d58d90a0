"""Tokens as an identity service would mint them."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping

import jwt

SECRET = "a secret of the tests without worth to anyone else"


def mint(user_id: str, *, secret: str = SECRET, ttl_s: float = 3600.0, **claims: object) -> str:
    """Return a token of `user_id` that expires in `ttl_s`; `claims`, for example `role`, are added as given."""
    now_s = time.time()
    return jwt.encode({"sub": user_id, "iat": now_s, "exp": now_s + ttl_s} | claims, secret, algorithm="HS256")


def part(data: bytes) -> str:
    """Return one of the three parts of a token."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign_by_hand(header: Mapping[str, object], payload: bytes, key: bytes) -> str:
    """Return a token with an HS256 signature and arbitrary content: libraries refuse to make invalid ones."""
    signed = f"{part(json.dumps(header).encode())}.{part(payload)}"
    return f"{signed}.{part(hmac.digest(key, signed.encode(), hashlib.sha256))}"
