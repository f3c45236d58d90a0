"""The gateway's aiohttp application: routes, and every failure in the envelope of protocol.md."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_websocket import WebSocketReader

from gateway import metrics
from gateway.admission.pace import Pace
from gateway.auth.guard import Guard
from gateway.live.endpoint import Live
from gateway.rest.envelope import SERVER, bearer_token, failure
from gateway.settings import GatewaySettings
from shared.errors import HTTP_STATUS, ErrorCode, Refusal, Unavailable
from shared.telemetry import correlation, logs, tracing

log = logs.get(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = "X-Request-Id"

NO_TAKEOVER = "server_no_context_takeover"
URL_MAX_BYTES = 8190
HEADER_MAX_BYTES = 16_380  # name and value; a token may have 8 KB. Not URL_MAX_BYTES: the two are told apart by it

MASKED = 0x80
RESERVED_BITS = b"\xf0\x80"

HEADERS_MAX = 100
HEAD_TIMEOUT_S = 10.0
KEEPALIVE_TIMEOUT_S = 75.0  # longer than load balancers keep theirs

_CODES_BY_STATUS = {
    400: ErrorCode.VALIDATION,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    413: ErrorCode.TOO_LARGE,
    414: ErrorCode.TOO_LARGE,
    431: ErrorCode.TOO_LARGE,
    503: ErrorCode.UNAVAILABLE,
}


def make_app(settings: GatewaySettings, guard: Guard, live: Live, routes: Iterable[web.RouteDef]) -> web.Application:
    """The application of one gateway process."""

    @web.middleware
    async def with_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        if token := bearer_token(request):
            await guard.refresh_keys_for(token)
        return await handler(request)

    app = web.Application(middlewares=[envelope, with_key], client_max_size=settings.max_message_bytes)
    app.on_response_prepare.append(_unnamed)
    app.router.add_get("/v1/live", live.handle)
    app.add_routes(routes)
    app.on_response_prepare.append(_announce_compression)
    return app


async def _announce_compression(_: web.Request, response: web.StreamResponse) -> None:
    """Tell clients that they need not keep a window for us: every frame is compressed by itself."""
    extension = response.headers.get(hdrs.SEC_WEBSOCKET_EXTENSIONS, "")
    if extension and NO_TAKEOVER not in extension:
        response.headers[hdrs.SEC_WEBSOCKET_EXTENSIONS] = f"{extension}; {NO_TAKEOVER}"


async def _unnamed(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


@web.middleware
async def envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every failure into the failure envelope; time and name REST calls: an answer has its `X-Request-Id`."""
    started_s = time.perf_counter()
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical == "/v1/live":
        return await _enveloped(request, handler)
    # What matches no route has a method and a path of the client's choice: no labels.
    route = "none" if resource is None else f"{request.method} {resource.canonical}"
    request_id = correlation.choose(request.headers.get(REQUEST_ID))
    with correlation.request(request_id), tracing.span(route):
        response = await _enveloped(request, handler)
    response.headers[REQUEST_ID] = request_id
    metrics.REST_SECONDS.labels(route, str(response.status)).observe(time.perf_counter() - started_s)
    return response


async def _enveloped(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return failure(refusal, HTTP_STATUS[refusal.code])
    except Unavailable as error:
        return failure(Refusal(ErrorCode.UNAVAILABLE, str(error), retry_after_ms=1000), 503)
    except web.HTTPException as error:
        return _from_http(error)
    except ConnectionError:  # the client has gone before it was answered; aiohttp passes over it
        raise
    except Exception:  # the wall around one request
        log.exception("request_failed", method=request.method)
        return failure(Refusal(ErrorCode.INTERNAL, "an error of ours; it is in the logs"), 500)


def _from_http(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals: no such path, wrong method, body too large."""
    response = _from_status(error.status, error.reason)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _from_status(status: int, reason: str) -> web.Response:
    code = _CODES_BY_STATUS.get(status, ErrorCode.VALIDATION if status < 500 else ErrorCode.INTERNAL)
    return failure(Refusal(code, reason.lower()), status)


class Runner(web.AppRunner):
    """Runs the application so that what fails before it is reached gets the failure envelope too.

    A connection that brings no whole request in 10 s is dropped, and so is one that is idle for 75 s behind an answer.
    """

    __slots__ = ("_newcomers", "_pace")

    def __init__(self, app: web.Application, pace: Pace, **options: Any) -> None:
        self._pace = pace
        self._newcomers = Newcomers()
        app.on_response_prepare.append(self._answered)
        super().__init__(
            app,
            access_log=None,
            max_line_size=URL_MAX_BYTES,
            max_field_size=HEADER_MAX_BYTES,
            max_headers=HEADERS_MAX,
            keepalive_timeout=KEEPALIVE_TIMEOUT_S,
            auto_decompress=False,  # compressed bodies are refused: see `body_of`
            **options,
        )

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await server.request_handler(request)
            except web.HTTPException as error:  # from before the middlewares: an expectation that we do not know
                return _from_http(error)

        made = _Server(handle, request_factory=server.request_factory, **self._kwargs)
        made.pace, made.newcomers = self._pace, self._newcomers
        return made

    async def _answered(self, request: web.Request, _: web.StreamResponse) -> None:
        self._pace.settled(request.protocol)

    def protocol(self) -> web.RequestHandler:
        """What speaks to a connection that was taken."""
        assert self.server is not None  # noqa: S101 - `setup` was awaited
        return self.server()

    async def sweep(self) -> None:
        """Drop the connections that send their request too slowly, or not at all; until cancelled."""
        while True:
            await asyncio.sleep(HEAD_TIMEOUT_S / 10)
            self._newcomers.drop_late(time.monotonic())


class Newcomers:
    """The connections of the last HEAD_TIMEOUT_S, oldest first: one sweep instead of a timer each."""

    def __init__(self) -> None:
        self._came_at_s: dict[_Connection, float] = {}

    def add(self, connection: "_Connection", now_s: float) -> None:
        """A connection was made."""
        self._came_at_s[connection] = now_s

    def discard(self, connection: "_Connection") -> None:
        """It is gone."""
        self._came_at_s.pop(connection, None)

    def drop_late(self, now_s: float) -> None:
        """Forget those that have brought a request, and drop those that have not in time."""
        late = [connection for connection, at_s in self._came_at_s.items() if now_s - at_s >= HEAD_TIMEOUT_S]
        for connection in late:
            del self._came_at_s[connection]
        if dropped := sum(connection.drop_if_silent() for connection in late):
            log.info("no_request_in_time", connections=dropped)


class _Server(web.Server):
    pace: Pace
    newcomers: Newcomers

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _MaskCheck:
    """Stands before aiohttp's parser, which does not look, until the first frame of a client has shown that it masks
    (RFC 6455, 5.1). One that does not is shown to the parser as the protocol error that it is."""

    __slots__ = ("_begun", "_parser", "feed_data", "feed_eof")

    def __init__(self, parser: WebSocketReader) -> None:
        self._parser = parser
        self._begun = b""
        self.feed_data: Callable[[bytes], tuple[bool, bytes]] = self._first
        self.feed_eof = parser.feed_eof

    def _first(self, data: bytes) -> tuple[bool, bytes]:
        data = self._begun + data
        if len(data) < 2:
            self._begun = data
            return False, b""
        self.feed_data = self._parser.feed_data
        return self.feed_data(data if data[1] & MASKED else RESERVED_BITS)


class _Connection(web.RequestHandler):
    """aiohttp answers broken HTTP in plain text and logs the bytes that it could not read: a token may be in them."""

    __slots__ = ("_server",)

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.newcomers.add(self, time.monotonic())

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._server.newcomers.discard(self)
        self._server.pace.settled(self)

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        """The connection has become a WebSocket."""
        super().set_parser(cast(WebSocketReader, _MaskCheck(parser)), data_received_cb)

    def drop_if_silent(self) -> bool:
        """Drop the connection if no whole request has come; whether it was."""
        if self._request_count or self.transport is None:
            return False
        self.transport.abort()
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The failure envelope, and the end of the connection."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun and cannot be replaced")
        if status >= 500:
            log.error("http_failed", status=status, exc_info=exc)
            response = _from_status(status, "an error of ours; it is in the logs")
        elif isinstance(exc, LineTooLong):
            is_url = exc.args[1] == URL_MAX_BYTES
            response = _from_status(414, "the URL is too long") if is_url else _from_status(431, "a header is too long")
        else:
            log.info("http_not_understood", kind=type(exc).__name__)
            response = _from_status(status, "this is not HTTP as it should be")
        response.force_close()
        return response
