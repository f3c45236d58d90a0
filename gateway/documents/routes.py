"""Routes of the API documents. They are public: no token, readable from any origin."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.documents import DOCUMENTS
from shared.encoding import to_json

MAX_AGE_S = 300


def document_routes() -> list[web.RouteDef]:
    """Return the routes `/v1/openapi.json` and `/v1/asyncapi.json`; both documents are built here, once."""
    return [web.get(f"/v1/{name}", _serving(to_json(make()))) for name, make in DOCUMENTS.items()]


def _serving(body: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    headers = {"Cache-Control": f"max-age={MAX_AGE_S}", "Access-Control-Allow-Origin": "*"}

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)

    return serve
