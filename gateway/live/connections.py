"""The open sockets of this process: writing to them, and what is swept over all of them instead of a timer each."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from gateway import metrics
from gateway.fanout.batch import Batch
from gateway.fanout.wire import text_frame
from gateway.live.in_flight import InFlight
from gateway.live.send_queue import Outbox
from gateway.live.session import Close, Session
from shared.protocol.close_codes import CloseCode
from shared.telemetry import logs
from shared.times import now_ms

log = logs.get(__name__)

SLOW_BYTES = 256 * 1024
DRAINED_BYTES = 64 * 1024
SESSION_SWEEP_S = 1.0
SLOW_SWEEP_S = 0.05
CLOSE_TIMEOUT_S = 2.0
FAREWELL_BUFFER_MAX_BYTES = 1024 * 1024


class Socket:
    """One client connection. Implements `channel.Sink`; frames are written past aiohttp, straight to its transport."""

    __slots__ = (
        "_connections",
        "_transport",
        "_ws",
        "closing",
        "deflates",
        "in_flight",
        "is_present",
        "opened_ms",
        "outbox",
        "session",
        "session_id",
        "user_id",
    )

    def __init__(
        self, connections: "Connections", ws: web.WebSocketResponse, transport: asyncio.Transport, session: Session
    ) -> None:
        self.session = session
        self.session_id = session.id
        self.user_id = ""
        self.opened_ms = now_ms()
        self.outbox: Outbox | None = None
        self.closing = False
        self.deflates = False  # takes compressed frames (RFC 7692)
        self.is_present = False  # counted in the roster
        self.in_flight = InFlight()
        self._connections = connections
        self._ws = ws
        self._transport = transport

    @property
    def is_gone(self) -> bool:
        """Whether nothing can reach the client any more."""
        return self.closing or self._transport.is_closing()

    def send(self, frame: bytes) -> None:
        """Send one JSON frame; it is never dropped."""
        data = text_frame(frame)
        self._connections.answers += 1
        self._connections.answer_bytes += len(data)
        self.write(Batch.lossless((data,)))

    def write(self, batch: Batch) -> None:
        """See `channel.Sink`. HOT: called once a socket and flush."""
        if self.closing:
            return
        if self.outbox is None:
            try:
                if self._transport.get_write_buffer_size() <= SLOW_BYTES:
                    self._transport.write(batch.deflated if self.deflates else batch.data)
                    return
            except Exception:  # the wall around one socket: a dead one must not break the flush of the others
                self._lost()
                return
            self.outbox = Outbox()
            self._connections.became_slow(self)
        if not self.outbox.add(batch.items):
            metrics.SLOW_CLOSES.inc()
            self.close(Close(CloseCode.SLOW, "reading too slowly"))

    def drain(self) -> bool:
        """Write what has waited, as far as the transport takes it. True when nothing waits any more."""
        outbox = self.outbox
        if self.closing or outbox is None:
            return True
        try:
            if self._transport.get_write_buffer_size() > DRAINED_BYTES:
                return False
            self._transport.write(outbox.take(SLOW_BYTES))
        except Exception:  # the wall around one socket
            self._lost()
            return True
        if outbox:
            return False
        self._leave_outbox()
        return True

    def _lost(self) -> None:
        """The client has gone without a word, which a write has found out."""
        self.closing = True
        metrics.CLOSES.labels("1006", "client").inc()
        self._leave_outbox()

    def _leave_outbox(self) -> None:
        """Nothing waits any more; what was shed meanwhile is counted."""
        if self.outbox is not None:
            metrics.SHED.inc(self.outbox.dropped)
            metrics.CONFLATED.inc(self.outbox.conflated)
            self.outbox = None

    def subscribed(self, channel: str) -> None:
        """Count a subscription that has been answered."""
        if channel not in self.session.subscriptions:
            self.session.subscriptions.add(channel)
            metrics.SUBSCRIPTIONS.inc()

    def unsubscribed(self, channel: str) -> None:
        """See `channel.Sink`."""
        if channel in self.session.subscriptions:
            self.session.subscriptions.discard(channel)
            metrics.SUBSCRIPTIONS.dec()

    def stranded(self) -> None:
        """See `channel.Sink`."""
        self.close(Close(CloseCode.OVERLOADED, "could not be brought up to date"))

    def quoted(self, symbol: str, max_rate: float) -> None:
        """Count a symbol whose prices are sent."""
        if symbol not in self.session.symbols:
            metrics.SUBSCRIPTIONS.inc()
        self.session.symbols[symbol] = max_rate

    def unquoted(self, symbol: str) -> None:
        """A symbol's prices are sent no longer."""
        if self.session.symbols.pop(symbol, None) is not None:
            metrics.SUBSCRIPTIONS.dec()

    async def finish(self, close: Close, within_s: float) -> None:
        """Close when what is in flight has been answered, or after `within_s`. Meanwhile nothing new is begun."""
        self.in_flight.shut()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self.in_flight.ended()
        finally:
            self.close(close)
            self.in_flight.reopen()

    def close(self, close: Close) -> None:
        """Send the last frame and close; nothing is written after it.

        The frame goes past what still waits for a slow socket, and is lost only if 1 MB is on its way before it.
        """
        if self.closing:
            return
        self.closing = True
        if close.frame is not None:
            with suppress(Exception):  # the wall around one socket
                if self._transport.get_write_buffer_size() <= FAREWELL_BUFFER_MAX_BYTES:
                    self._transport.write(text_frame(close.frame))
        metrics.CLOSES.labels(close.code, "server").inc()
        self._leave_outbox()
        self._connections.spawn(self._close(close))

    async def _close(self, close: Close) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._ws.close(code=close.code, message=close.reason.encode())
        except TimeoutError:
            pass
        finally:
            self._transport.abort()


class Connections:
    """Every socket, by user, and the slow ones. Bounded by MAX_CONNECTIONS."""

    def __init__(self, spawn: Callable[..., object]) -> None:
        self.sockets: set[Socket] = set()
        self.all_gone = asyncio.Event()
        self.all_gone.set()
        self.by_user: dict[str, set[Socket]] = {}
        self._slow: set[Socket] = set()
        self._opening = 0
        self.answers = 0  # frames to one socket since they were last brought to the metrics
        self.answer_bytes = 0
        self.spawn = spawn

    @contextmanager
    def opening(self) -> Iterator[None]:
        """While a connection is being upgraded: `all_gone` waits for it too."""
        self._opening += 1
        self.all_gone.clear()
        try:
            yield
        finally:
            self._opening -= 1
            self._note_gone()

    def add(self, socket: Socket) -> None:
        """A socket has opened."""
        self.sockets.add(socket)
        self.all_gone.clear()
        metrics.CONNECTIONS_OPENED.inc()
        metrics.CONNECTIONS.set(len(self.sockets))

    def identify(self, socket: Socket, user_id: str) -> None:
        """A socket has authenticated."""
        socket.user_id = user_id
        self.by_user.setdefault(user_id, set()).add(socket)

    def remove(self, socket: Socket) -> None:
        """A socket is gone."""
        self.sockets.discard(socket)
        self._note_gone()
        for channel in list(socket.session.subscriptions):
            socket.unsubscribed(channel)
        for symbol in list(socket.session.symbols):
            socket.unquoted(symbol)
        self._slow.discard(socket)
        if (own := self.by_user.get(socket.user_id)) is not None:
            own.discard(socket)
            if not own:
                del self.by_user[socket.user_id]
        metrics.CONNECTIONS.set(len(self.sockets))
        metrics.SLOW.set(len(self._slow))

    def became_slow(self, socket: Socket) -> None:
        """A socket does not read fast enough."""
        self._slow.add(socket)
        metrics.SLOW.set(len(self._slow))

    async def sweep_sessions(self) -> None:
        """Close what is silent, unauthenticated or expired, once a second; until cancelled."""
        while True:
            await asyncio.sleep(SESSION_SWEEP_S)
            self._measure()
            self._tick(list(self.sockets))

    async def sweep_slow(self) -> None:
        """Let slow sockets go on as they drain; until cancelled."""
        while True:
            await asyncio.sleep(SLOW_SWEEP_S)
            for socket in [socket for socket in self._slow if socket.drain()]:
                self._slow.discard(socket)
                metrics.SLOW.set(len(self._slow))

    def _measure(self) -> None:
        """Bring to the metrics what was counted in plain integers."""
        metrics.FRAMES_OUT.labels("answer").inc(self.answers)
        metrics.BYTES_OUT.labels("answer").inc(self.answer_bytes)
        self.answers = self.answer_bytes = 0
        metrics.USERS.set(len(self.by_user))
        metrics.SLOW_BYTES.set(sum(socket.outbox.size_bytes for socket in self._slow if socket.outbox is not None))

    def _note_gone(self) -> None:
        if not self.sockets and not self._opening:
            self.all_gone.set()

    def _tick(self, sockets: Iterable[Socket]) -> None:
        now_s, wall_ms = time.monotonic(), now_ms()
        for socket in sockets:
            if socket.session.due_s > now_s:  # HOT: once a second for every socket there is
                continue
            if (close := socket.session.tick(now_s, wall_ms)) is not None:
                socket.close(close)
