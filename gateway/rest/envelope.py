"""What every REST call does alike: who calls, what comes in, and the envelopes of protocol.md."""

import math
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web

from gateway.guard import Guard
from gateway.identity import Identity
from shared import validation
from shared.commands import Caller
from shared.encoding import to_json
from shared.errors import ErrorCode, Malformed, Refusal
from shared.validation import Id

T = TypeVar("T")

Page = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=100)]


class In(msgspec.Struct, frozen=True, rename="camel"):
    """A query or a body; what we do not know is passed over."""


def bearer_token(request: web.BaseRequest) -> str:
    """The token of a request, or nothing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Calls:
    """A group of calls: who asks, and how they are answered."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def identity(self, request: web.Request) -> Identity:
        """Who calls. Raises as `Guard.admit`."""
        token = bearer_token(request)
        if not token:
            raise Refusal(ErrorCode.UNAUTHORIZED, "send the header Authorization: Bearer <token>")
        return self._guard.admit(token)

    def caller(self, request: web.Request) -> Caller:
        """On whose behalf. Raises as `Guard.admit`."""
        return self.identity(request).caller


class _PathId(msgspec.Struct, frozen=True):
    value: Id


def path_id(request: web.Request, name: str, field: str) -> str:
    try:
        return validation.convert({"value": request.match_info[name]}, _PathId).value
    except Refusal:
        raise Refusal.invalid(field, "is not an id") from None


def query_of(request: web.Request, kind: type[T]) -> T:
    """The query string as `kind`. Raises VALIDATION with the parameter's name; an empty parameter counts as absent."""
    return validation.convert({name: value for name, value in request.query.items() if value != ""}, kind)


async def body_of(request: web.Request, kind: type[T]) -> T:
    """The JSON body as `kind`. Raises VALIDATION, or aiohttp's 413 and 415; a compressed body is not taken."""
    if request.content_type not in ("application/json", "application/octet-stream", "text/plain"):
        raise web.HTTPUnsupportedMediaType
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise web.HTTPUnsupportedMediaType
    try:
        body = await request.read()
    except (web.RequestPayloadError, ConnectionError) as error:
        raise Refusal.invalid("body", "did not arrive whole") from error
    try:
        return validation.decode(body, msgspec.json.Decoder(kind))
    except Malformed as error:
        raise Refusal.invalid("body", str(error)) from error


def success(data: Any, status: int = 200) -> web.Response:
    return json_response({"success": True, "status": status, "data": data}, status)


def page_of(items: Any, page: int, limit: int, total: int) -> web.Response:
    pagination = {"page": page, "limit": limit, "total": total, "pages": -(-total // limit)}
    return json_response({"success": True, "status": 200, "data": items, "pagination": pagination}, 200)


def json_response(body: Any, status: int) -> web.Response:
    """A JSON response."""
    return web.Response(body=to_json(body), status=status, content_type="application/json", charset="utf-8")


def failure(refusal: Refusal, status: int) -> web.Response:
    """The failure envelope."""
    error: dict[str, object] = {"code": refusal.code, "message": refusal.message}
    if refusal.details:
        error["details"] = refusal.details
    response = json_response({"success": False, "status": status, "error": error}, status)
    if refusal.retry_after_ms is not None:
        response.headers["Retry-After"] = str(math.ceil(refusal.retry_after_ms / 1000))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
