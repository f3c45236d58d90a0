"""The HTTP server under the application: limits, time-outs before a request is complete, the hand-over to WebSocket.

It overrides aiohttp's server, which answers malformed requests in plain text and lacks some of these checks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from gateway import metrics
from gateway.admission.open_connections import OpenConnections
from gateway.admission.pace import Pace
from gateway.http.app import from_http, from_status
from gateway.http.upgrade_head import UpgradeHead, parse
from shared.telemetry import logs
from shared.waiting import until_next

log = logs.get(__name__)

URL_MAX_BYTES = 8190
HEADER_MAX_BYTES = 16_380  # name and value; a token may have 8 KB. Must differ from URL_MAX_BYTES: see `handle_error`

UPGRADE_LINE = b"GET /v1/live HTTP/1.1\r\n"
HEADERS_MAX = 100
HEAD_TIMEOUT_S = 10.0
KEEPALIVE_TIMEOUT_S = 75.0  # longer than the time-out of load balancers


Upgrade = Callable[["_Connection", UpgradeHead], bool]


class Runner(web.AppRunner):
    """Runs the application, and sends the failure envelope for failures before the application is reached.

    A connection whose first request head is not complete within 10 s is dropped, and so is one that is idle for 75 s.
    """

    __slots__ = ("_connections", "_pace", "_recent", "_upgrade")

    def __init__(
        self, app: web.Application, pace: Pace, connections: OpenConnections, upgrade: Upgrade, **options: Any
    ) -> None:
        self._pace = pace
        self._connections = connections
        self._upgrade = upgrade
        self._recent = RecentConnections()
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
            self._connections.became_busy(cast(_Connection, request.protocol))
            try:
                return await server.request_handler(request)
            except web.HTTPException as error:  # raised before the middlewares: an unknown Expect header
                return from_http(error)

        context = _ConnectionContext(self._pace, self._recent, self._connections, self._upgrade)
        return _Server(handle, context, request_factory=server.request_factory, **self._kwargs)

    async def _answered(self, request: web.Request, _: web.StreamResponse) -> None:
        self._pace.settled(request.protocol)

    def protocol(self, address: str) -> web.RequestHandler:
        """Return the protocol for an accepted connection; `address` is its key in `OpenConnections`."""
        assert isinstance(self.server, _Server)  # noqa: S101 - `setup` was awaited
        return self.server.connection(address)

    async def sweep(self) -> None:
        """Drop connections that send their first request head too slowly or not at all, until cancelled."""
        while True:
            await until_next(HEAD_TIMEOUT_S / 10)
            self._recent.drop_late(time.monotonic())
            metrics.OPEN_CONNECTIONS.set(self._connections.count)


class RecentConnections:
    """The connections of the last HEAD_TIMEOUT_S, the oldest first.

    One sweep replaces one timer per connection.
    """

    def __init__(self) -> None:
        self._opened_at_s: dict[_Connection, float] = {}

    def add(self, connection: "_Connection", now_s: float) -> None:
        """Add a connection that was made."""
        self._opened_at_s[connection] = now_s

    def discard(self, connection: "_Connection") -> None:
        """Remove a closed connection."""
        self._opened_at_s.pop(connection, None)

    def drop_late(self, now_s: float) -> None:
        """Forget connections older than HEAD_TIMEOUT_S; drop those whose first request head is not complete."""
        late = [connection for connection, at_s in self._opened_at_s.items() if now_s - at_s >= HEAD_TIMEOUT_S]
        for connection in late:
            del self._opened_at_s[connection]
        if dropped := sum(connection.drop_if_silent() for connection in late):
            log.info("request_timed_out", connections=dropped)


class _ConnectionContext(NamedTuple):
    """The objects that every connection of a server uses."""

    pace: Pace
    recent: RecentConnections
    open_connections: OpenConnections
    upgrade: Upgrade


class _Server(web.Server):
    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        context: _ConnectionContext,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._context = context

    def connection(self, address: str) -> web.RequestHandler:
        """Return the protocol of one connection."""
        return _Connection(self, self._context, address, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """A connection that answers malformed HTTP with the failure envelope, and may become a WebSocket.

    aiohttp would answer in plain text, and log the bytes that it could not parse, which may contain a token.
    """

    __slots__ = ("_context", "_has_begun", "_is_handed_over", "_is_new", "address")

    def __init__(self, server: web.Server, context: _ConnectionContext, address: str, **options: Any) -> None:
        super().__init__(server, **options)
        self._context = context
        self.address = address  # key of this connection in the per-address limit; "" if not counted
        self._is_new = True
        self._has_begun = False
        self._is_handed_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the connection.

        aiohttp starts only when the first bytes arrive, and never if these are an upgrade that is served at once.
        """
        self.transport = cast(asyncio.Transport, transport)
        self._context.recent.add(self, time.monotonic())
        self._context.open_connections.became_idle(self, self.address)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._has_begun:
            super().connection_lost(exc)
        else:
            self.transport = self._manager = self._parser = None  # these refer to this protocol: break the cycle
        self._context.recent.discard(self)
        self._context.pace.settled(self)
        self._context.open_connections.became_busy(self)
        if not self._is_handed_over:
            self._context.open_connections.left(self.address)

    def data_received(self, data: bytes) -> None:
        """Upgrade at once if these bytes are an ordinary upgrade request and the first on this connection.

        HOT: 95 us for a connection and its upgrade; 195 us through aiohttp's request, its tasks and the middlewares.
        """
        if self._is_new:
            self._is_new = False
            if (head := parse(data, UPGRADE_LINE)) is not None and self._context.upgrade(self, head):
                return
            self._begin()
        super().data_received(data)
        if self._messages:  # a request arrived; its handler begins two iterations of the loop later
            self._context.open_connections.became_busy(self)

    def _begin(self) -> None:
        """Let aiohttp serve this connection. It starts a task for that, which costs 20 us."""
        if self.transport is not None:
            self._has_begun = True
            super().connection_made(self.transport)

    async def start(self) -> None:
        """Serve requests, unless the connection was handed over before this task began."""
        if not self._is_handed_over:
            await super().start()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Finish a response; then the connection is idle, unless the next request is here."""
        finished = await super().finish_response(request, resp, start_time)
        if self.transport is not None and not self._messages:
            self._context.open_connections.became_idle(self, self.address)
        return finished

    def abort(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def hand_over(self, protocol: asyncio.Protocol) -> bytes:
        """Replace the protocol of the transport, and return the bytes that followed the request.

        The connection stays counted for its address. This method reports it to aiohttp as lost, so aiohttp ends its
        own task and timer and writes nothing more.
        """
        transport, self.transport = self.transport, None  # otherwise aiohttp would close it
        if transport is None:
            raise ConnectionResetError("the client has disconnected")
        transport.set_protocol(protocol)
        if self._buffer_paused or self._reading_paused:
            transport.resume_reading()
        data, self._message_tail = self._message_tail, b""
        self._is_handed_over = True
        self.connection_lost(None)
        return data

    def drop_if_silent(self) -> bool:
        """Drop the connection if its first request head is not complete. Return whether it was dropped."""
        if self._request_count or self.transport is None:
            return False
        self.abort()
        return True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the failure envelope, and end the connection."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun and cannot be replaced")
        if status >= 500:
            log.error("http_failed", status=status, exc_info=exc)
            response = from_status(status, "internal server error")
        elif isinstance(exc, LineTooLong):
            is_url = exc.args[1] == URL_MAX_BYTES
            response = from_status(414, "the URL is too long") if is_url else from_status(431, "a header is too long")
        else:
            log.info("http_malformed", kind=type(exc).__name__)
            response = from_status(status, "malformed HTTP")
        response.force_close()
        return response
