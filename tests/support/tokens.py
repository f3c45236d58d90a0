"""Tokens as an identity service would mint them."""

import time

import jwt

SECRET = "a secret of the tests, of no worth to anyone else"


def mint(user_id: str, *, secret: str = SECRET, ttl_s: float = 3600.0, **claims: object) -> str:
    """A token of `user_id` that ends in `ttl_s`; `claims` such as `role`, `firstName`, `communities` go in as given."""
    now_s = time.time()
    return jwt.encode({"sub": user_id, "iat": now_s, "exp": now_s + ttl_s} | claims, secret, algorithm="HS256")
