"""An identity service: its keys, and an HTTP server that publishes them."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support.services import free_port


def jwk_of(key: Any, kid: str, **fields: Any) -> dict[str, Any]:
    """Return the public half of a private key as a JWK."""
    public = key.public_key()
    match public:
        case rsa.RSAPublicKey():
            described = jwt.algorithms.RSAAlgorithm.to_jwk(public)
        case ec.EllipticCurvePublicKey():
            described = jwt.algorithms.ECAlgorithm.to_jwk(public)
        case _:
            described = jwt.algorithms.OKPAlgorithm.to_jwk(public)
    jwk: dict[str, Any] = json.loads(described)
    jwk.pop("key_ops", None)
    return {**jwk, "kid": kid, **fields}


def key_set(*jwks: Any) -> bytes:
    """Return a JWK set."""
    return json.dumps({"keys": jwks}).encode()


class Issuer:
    """Signs with one key at a time, publishes `body`, and counts requests."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/keys"
        self.port = port
        self.asked = 0
        self.status = 200
        self.body = b""
        self._kid = ""
        self._key = ed25519.Ed25519PrivateKey.generate()

    def rotate(self, kid: str, *, publish: bool = True) -> None:
        """Sign with a new key from now on, and optionally publish it alone."""
        self._kid, self._key = kid, ed25519.Ed25519PrivateKey.generate()
        if publish:
            self.publish()

    def publish(self) -> None:
        """Publish only the current key."""
        self.body = key_set(jwk_of(self._key, self._kid))

    def token(self, user_id: str, **claims: Any) -> str:
        """Return a token signed with the current key."""
        payload = {"sub": user_id, "exp": int(time.time()) + 600, **claims}
        return jwt.encode(payload, self._key, "EdDSA", headers={"kid": self._kid})

    async def _answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(status=self.status, body=self.body, headers={"Location": "/elsewhere"})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve HTTP for the duration of the block."""
        app = web.Application()
        app.router.add_get("/keys", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True).start()
            yield
        finally:
            await runner.cleanup()


@asynccontextmanager
async def issuer() -> AsyncIterator[Issuer]:
    """Yield a reachable issuer with its first key published."""
    made = Issuer(free_port())
    made.rotate("first")
    async with made.serving():
        yield made
