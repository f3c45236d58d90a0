"""`/v1/live`: the shell around `Session`. Upgrades connections, reads their frames in order, and acts on them.

upgrade ── admission ──> read loop: frame ── session.receive ──> Answer, Close, Authenticate or Perform
"""

import asyncio
import time
import zlib
from contextlib import suppress
from typing import assert_never, cast

from aiohttp import WSMessage, WSMsgType, web

from gateway import metrics
from gateway.admission.admission import Admission, Refused
from gateway.admission.admission_queue import AdmissionQueue
from gateway.live.authentication import Authentication
from gateway.live.connections import Connections
from gateway.live.drain import LATE_SPREAD_MS, farewell
from gateway.live.requests import LiveRequests
from gateway.live.session import Answer, Authenticate, Close, Perform, Session
from gateway.live.socket import Socket
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode, Refusal
from shared.ids import Prefix, new_id
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import error_frame
from shared.telemetry import logs, tracing

log = logs.get(__name__)

FRAMES_PER_TURN = 32
CLOSE_TIMEOUT_S = 2.0
_COUNTED = frozenset({WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG})
_COMMON_CLIENT_CODES = (1000, 1001, 1005, 1006, 1009)


class LiveEndpoint:
    """The WebSocket endpoint of one gateway process."""

    def __init__(
        self,
        settings: GatewaySettings,
        admission: Admission,
        admission_queue: AdmissionQueue,
        connections: Connections,
        authentication: Authentication,
        requests: LiveRequests,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._admission_queue = admission_queue
        self._connections = connections
        self._authentication = authentication
        self._requests = requests
        metrics.CONNECTIONS_MAX.set(settings.max_connections)

    def stop_admitting(self) -> None:
        """Refuse every upgrade from now on."""
        self._admission.draining = True

    async def readiness(self) -> str | None:
        """Return None unless the gateway is draining; then the reason."""
        return "draining" if self._admission.draining else None

    # Connections ----------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET /v1/live."""
        address = self._admit(request)
        try:
            return await self._serve(request)
        finally:
            self._admission.left(address)

    def _admit(self, request: web.Request) -> str:
        """Return the address that the connection is counted for. Raises a refusal of the upgrade."""
        headers = request.headers
        try:
            return self._admission.enter(
                request.remote or "", headers.getall("X-Forwarded-For", []), headers.getall("Origin", [])
            )
        except Refused as refused:
            metrics.CONNECTIONS_REFUSED.labels(refused.reason).inc()
            raise

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        ws, socket = await self._upgrade(request)
        if self._admission.draining:  # draining began during the upgrade
            socket.close(farewell(LATE_SPREAD_MS))
        try:
            await self._read(ws, socket)
        except Exception:  # a bug costs this connection and no other
            log.exception("connection_failed")
            failure = error_frame(Refusal(ErrorCode.INTERNAL, "internal server error"))
            await socket.close_and_wait(Close(CloseCode.INTERNAL, "internal server error", failure))
        finally:
            if not socket.closing:
                metrics.CLOSES.labels(_client_code(ws.close_code), "client").inc()
            socket.closing = True
            self._requests.forget(socket)
            self._authentication.forget(socket, time.monotonic())
        return ws

    async def _upgrade(self, request: web.Request) -> tuple[web.WebSocketResponse, Socket]:
        ws = web.WebSocketResponse(
            max_msg_size=self._settings.max_message_bytes + 1,  # aiohttp accepts messages below this size
            autoping=False,  # report pings, which count as activity
            compress=self._settings.compression,
            timeout=CLOSE_TIMEOUT_S,
        )
        with self._connections.opening():
            try:
                await ws.prepare(request)
            except ValueError as error:  # aiohttp fails on non-ASCII bytes in the headers that it answers to
                raise Refusal(ErrorCode.VALIDATION, "not a WebSocket handshake") from error
            session = Session(new_id(Prefix.SESSION), self._settings, time.monotonic())
            socket = Socket(self._connections, ws, cast(asyncio.Transport, request.transport), session)
            socket.deflates = ws.compress == zlib.MAX_WBITS  # no compression for a client that wants a smaller window
            self._connections.add(socket)
        return ws, socket

    async def _read(self, ws: web.WebSocketResponse, socket: Socket) -> None:
        """Read frames until the connection ends."""
        frames = 0
        while True:
            message = await ws.receive()
            frames += 1
            if not frames % FRAMES_PER_TURN:
                await asyncio.sleep(0)  # `receive` does not yield while frames are buffered: let other sockets run
            if message.type not in _COUNTED:
                if message.type is not WSMsgType.BINARY:
                    return
                socket.close(Close(CloseCode.UNSUPPORTED, "only text frames are supported"))
            elif socket.closing:
                continue
            elif (close := socket.session.frame_received(time.monotonic())) is not None:
                socket.close(close)
            else:
                await self._take(ws, socket, message)

    async def _take(self, ws: web.WebSocketResponse, socket: Socket, message: WSMessage) -> None:
        """Process a text frame, a ping or a pong. An unauthenticated socket waits in the admission queue."""
        if message.type is WSMsgType.PING:
            with suppress(ConnectionError):  # the client disconnected; the next read reports it
                await ws.pong(message.data)
        elif message.type is WSMsgType.PONG:
            pass
        elif socket.is_admitted:
            await self._act(socket, message.data)
        else:
            async with self._admission_queue.slot():
                if not socket.is_gone:  # it may have left while it waited
                    await self._act(socket, message.data)

    # Frames ---------------------------------------------------------------------------------------------------------

    async def _act(self, socket: Socket, text: str) -> None:
        metrics.BYTES_IN.inc(len(text) if text.isascii() else len(text.encode()))
        match socket.session.receive(text, time.monotonic()):
            case Answer(answer, refused):
                metrics.FRAMES_IN.labels("ping" if refused is None else "other").inc()
                if refused is not None:
                    metrics.ERRORS_OUT.labels(refused).inc()
                socket.send(answer)
            case Close() as close:
                metrics.FRAMES_IN.labels("other").inc()
                socket.close(close)
            case Authenticate(request, id):
                metrics.FRAMES_IN.labels("auth").inc()
                if await self._authentication.authenticate(socket, request, id):
                    await self._requests.restore(socket, request.subscriptions)
            case Perform(incoming):
                metrics.FRAMES_IN.labels(incoming.name).inc()
                with tracing.span(incoming.name):
                    await self._requests.perform(socket, incoming)
            case other:
                assert_never(other)


def _client_code(code: int | None) -> str:
    """Return a metric label for the client's close code, which may be any number. 1006: no close frame arrived."""
    return str(code) if code in _COMMON_CLIENT_CODES else "other"
