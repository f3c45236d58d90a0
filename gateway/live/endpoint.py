"""`/v1/live`: the shell around `Session`. Upgrades connections, and acts on the frames of all of them.

upgrade ── admission ──> WebSocket: frame ── session.receive ──> Answer, Close, Authenticate or Perform
"""

import asyncio
import time
import zlib
from typing import Protocol, assert_never, cast

from aiohttp import web
from aiohttp._websocket.helpers import websocket_mask

from gateway import metrics
from gateway.admission.admission import Admission
from gateway.admission.admission_queue import AdmissionQueue
from gateway.admission.refused import Refused
from gateway.live.authentication import Authentication
from gateway.live.connections import Connections
from gateway.live.frame_reader import Fragment, FrameReader, PingFrame, PongFrame, ProtocolViolation
from gateway.live.handshake import Handshake, Headers, shake_hands
from gateway.live.requests import LiveRequests
from gateway.live.session import Answer, Authenticate, Close, Perform, Session
from gateway.live.socket import Socket
from gateway.live.websocket import Received, WebSocket, Work
from gateway.rest.envelope import SERVER
from gateway.settings import GatewaySettings
from shared.errors import ErrorCode, Refusal
from shared.ids import Prefix, new_id
from shared.protocol.client_frames import Auth, Incoming
from shared.protocol.close_codes import CloseCode
from shared.protocol.server_frames import error_frame
from shared.protocol.validation import FrameId
from shared.telemetry import logs, tracing

log = logs.get(__name__)

_AUTH_FRAMES = metrics.FRAMES_IN.labels("auth")
_COMMON_CLIENT_CODES = (1000, 1001, 1005, 1006, 1009)


class Upgradable(Protocol):
    """The connection of an HTTP request: see `gateway.http.server`."""

    address: str  # key of this connection in the per-address limit; "" if not counted
    transport: asyncio.Transport | None

    def hand_over(self, protocol: asyncio.Protocol) -> bytes:
        """Replace the protocol of the transport. Return the bytes that followed the request."""


class Upgraded(web.StreamResponse):
    """A placeholder for a response that is written already; aiohttp writes nothing and forgets the connection."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


class LiveEndpoint:
    """The WebSocket endpoint of one gateway process. Implements `websocket.Receiver`."""

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

    # The upgrade ----------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handle GET /v1/live."""
        if request.method != "GET" or request.version < (1, 1):
            raise Refusal(ErrorCode.VALIDATION, "not a WebSocket handshake: the request is not a GET of HTTP/1.1")
        try:
            self._upgrade(cast(Upgradable, request.protocol), request.headers)
        except Refused as refused:
            metrics.CONNECTIONS_REFUSED.labels(refused.reason).inc()
            raise
        return Upgraded()

    def upgrade_at_once(self, connection: Upgradable, headers: Headers) -> bool:
        """Upgrade a connection with its first request.

        Return False if it is refused or the client has gone; aiohttp then reads the request, and `handle` answers it.
        """
        try:
            self._upgrade(connection, headers)
        except (Refusal, ConnectionError):
            return False
        return True

    def _upgrade(self, connection: Upgradable, headers: Headers) -> None:
        """Answer the handshake and begin to read frames. Never awaits, so a drain cannot start halfway through.

        Raises Refusal, or ConnectionError if the client has disconnected.
        """
        transport = connection.transport
        if transport is None:
            raise ConnectionResetError("the client has disconnected")
        handshake = shake_hands(headers, compression=self._settings.compression, server=SERVER)
        address = self._admission.enter(
            str((transport.get_extra_info("peername") or ("",))[0]),
            headers.getall("X-Forwarded-For", ()),
            headers.getall("Origin", ()),
        )
        self._open(connection, transport, handshake, address or connection.address)

    def _open(self, connection: Upgradable, transport: asyncio.Transport, handshake: Handshake, address: str) -> None:
        deflate = handshake.deflate
        reader = FrameReader(self._settings.max_message_bytes, inflates=deflate is not None, unmask=websocket_mask)
        websocket = WebSocket(transport, reader, self)
        socket = Socket(
            self._connections,
            websocket,
            transport,
            Session(new_id(Prefix.SESSION), self._settings, time.monotonic()),
            address=address,
            deflates=deflate is not None and deflate.server_window == zlib.MAX_WBITS,  # others are sent no compression
        )
        self._connections.add(socket)
        data = connection.hand_over(websocket)
        transport.write(handshake.answer)
        websocket.begin(socket, data)

    # Frames: see `websocket.Receiver` -------------------------------------------------------------------------------

    def receive(self, socket: Socket, message: Received) -> Work | None:
        """Process a text frame, a ping, a pong or a part of a message.

        Return the work to await before the next message is read.
        """
        try:
            work = self._receive(socket, message, time.monotonic())
        except Exception:  # a bug costs this connection and no other
            self._close_after_bug(socket)
            return None
        return None if work is None else self._guarded(socket, work)

    def violated(self, socket: Socket, violation: ProtocolViolation) -> None:
        """Close a connection that has violated the protocol."""
        socket.close(Close(violation.code, violation.reason))

    def ended(self, socket: Socket, code: int) -> None:
        """Forget a connection. `code` is the client's close code."""
        if not socket.closing:
            metrics.CLOSES.labels(_client_code(code), "client").inc()
        socket.mark_closing()
        self._requests.forget(socket)
        self._authentication.forget(socket, time.monotonic())
        self._admission.left(socket.address)

    def spawn(self, work: Work) -> "asyncio.Task[None]":
        """Start a task that the drain awaits."""
        return self._connections.spawn(work)

    def _receive(self, socket: Socket, message: Received, now_s: float) -> Work | None:
        if socket.closing:
            return None
        session = socket.session
        received = session.fragment_received if isinstance(message, Fragment) else session.frame_received
        if (close := received(now_s)) is not None:
            socket.close(close)
            return None
        match message:
            case str():
                return self._act(socket, message, now_s)
            case PingFrame(data):
                socket.pong(data)
            case PongFrame() | Fragment():
                pass
            case other:
                assert_never(other)
        return None

    async def _guarded(self, socket: Socket, work: Work) -> None:
        try:
            await work
        except Exception:  # a bug costs this connection and no other
            self._close_after_bug(socket)

    def _act(self, socket: Socket, text: str, now_s: float) -> Work | None:
        self._connections.bytes_in += len(text) if text.isascii() else len(text.encode())
        match socket.session.receive(text, now_s):
            case Answer(pong, None):
                self._connections.pings += 1
                socket.send(pong)
            case Answer(error, refused):
                metrics.FRAMES_IN.labels("other").inc()
                metrics.ERRORS_OUT.labels(refused).inc()
                socket.send(error)
            case Close() as close:
                metrics.FRAMES_IN.labels("other").inc()
                socket.close(close)
            case Authenticate(request, id):
                _AUTH_FRAMES.inc()
                begin = self._authenticate if socket.is_authenticated else self._enter
                return begin(socket, request, id)
            case Perform(incoming):
                metrics.FRAMES_IN.labels(incoming.name).inc()
                if not self._requests.send_at_once(socket, incoming):
                    return self._perform(socket, incoming)
            case other:
                assert_never(other)
        return None

    async def _enter(self, socket: Socket, request: Auth, id: FrameId | None) -> None:
        """Authenticate a socket for the first time, after a wait in the admission queue."""
        async with self._admission_queue.slot():
            if not socket.is_gone:  # it may have left while it waited
                await self._authenticate(socket, request, id)

    async def _authenticate(self, socket: Socket, request: Auth, id: FrameId | None) -> None:
        if await self._authentication.authenticate(socket, request, id):
            await self._requests.restore(socket, request.subscriptions)

    async def _perform(self, socket: Socket, incoming: Incoming) -> None:
        with tracing.span(incoming.name, incoming.trace):
            await self._requests.perform(socket, incoming)

    def _close_after_bug(self, socket: Socket) -> None:
        log.exception("connection_failed")
        failure = error_frame(Refusal(ErrorCode.INTERNAL, "internal server error"))
        socket.close(Close(CloseCode.INTERNAL, "internal server error", failure))


def _client_code(code: int) -> str:
    """Return a metric label for the client's close code, which may be any number. 1006: no close frame arrived."""
    return str(code) if code in _COMMON_CLIENT_CODES else "other"
