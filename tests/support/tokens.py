"""Tokens as an identity service would mint them."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping

import jwt

SECRET = "a secret of the tests, of no worth to anyone else"


def mint(user_id: str, *, secret: str = SECRET, ttl_s: float = 3600.0, **claims: object) -> str:
    """A token of `user_id` that ends in `ttl_s`; `claims` such as `role`, `firstName`, `communities` go in as given."""
    now_s = time.time()
    return jwt.encode({"sub": user_id, "iat": now_s, "exp": now_s + ttl_s} | claims, secret, algorithm="HS256")


def part(data: bytes) -> str:
    """One of the three parts of a token."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign_by_hand(header: Mapping[str, object], payload: bytes, key: bytes) -> str:
    """A token with an HS256 signature, whatever stands in it: libraries refuse to make the bad ones."""
    signed = f"{part(json.dumps(header).encode())}.{part(payload)}"
    return f"{signed}.{part(hmac.digest(key, signed.encode(), hashlib.sha256))}"
