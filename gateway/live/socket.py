"""One client connection: writing to it, and closing it."""

import asyncio
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Protocol

from gateway import metrics
from gateway.fanout.batch import Batch
from gateway.fanout.wire import pong, text_frame
from gateway.live.in_flight import InFlight
from gateway.live.send_queue import SendQueue
from gateway.live.session import Close, Session
from shared.byte_budget import Hold
from shared.commands.command import Caller
from shared.protocol.close_codes import CloseCode
from shared.times import now_ms

HIGH_WATER_BYTES = 256 * 1024  # a socket whose transport holds more is slow: queue its items
LOW_WATER_BYTES = 64 * 1024  # flush the queue of a slow socket while its transport holds at most this much
FAREWELL_BUFFER_MAX_BYTES = 1024 * 1024
READS_TOO_SLOWLY = Close(CloseCode.SLOW, "reading too slowly")


class SocketOwner(Protocol):
    """The part of `Connections` that a socket uses."""

    answers: int
    answer_bytes: int

    def became_slow(self, socket: "Socket") -> None:
        """Flush the queue of a slow socket from now on."""

    def note_closing(self, socket: "Socket") -> None:
        """Record that a socket is closing."""


class SocketLink(Protocol):
    """The connection under a socket: see `gateway.live.websocket`."""

    def shut(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection once the client has answered it, or after 2 s."""


class Socket:
    """One client connection. Implements `lane.Sink`. Writes frames directly to the transport."""

    __slots__ = (
        "_holds",
        "_link",
        "_owner",
        "_transport",
        "address",
        "closing",
        "deflates",
        "in_flight",
        "is_authenticated",
        "opened_ms",
        "send_queue",
        "session",
        "session_id",
        "user_id",
    )

    def __init__(
        self,
        owner: SocketOwner,
        link: SocketLink,
        transport: asyncio.Transport,
        session: Session,
        *,
        address: str = "",
        deflates: bool = False,
    ) -> None:
        self.session = session
        self.session_id = session.id
        self.user_id = ""
        self.address = address  # key of this connection in the per-address limit; "" if not counted
        self.opened_ms = now_ms()
        self.send_queue: SendQueue | None = None
        self.closing = False
        self.deflates = deflates  # negotiated compression (RFC 7692)
        self.is_authenticated = False  # with a verified token, within the limit of its user, and in the roster
        self.in_flight = InFlight()
        self._holds: deque[tuple[int, Hold]] | None = None  # each held until the item with its number is sent
        self._owner = owner
        self._link = link
        self._transport = transport

    @property
    def caller(self) -> Caller:
        """Return the user of an authenticated socket."""
        identity = self.session.identity
        assert identity is not None  # noqa: S101 - the session refuses everything before authentication
        return identity.caller

    @property
    def is_gone(self) -> bool:
        """Return whether the client can no longer be reached."""
        return self.closing or self._transport.is_closing()

    @property
    def is_behind(self) -> bool:
        """See `activity_rooms.ActivitySink`."""
        return self.send_queue is not None or self._transport.get_write_buffer_size() > LOW_WATER_BYTES

    # Writing --------------------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send one JSON frame, which is never dropped."""
        data = text_frame(frame)
        self._owner.answers += 1
        self._owner.answer_bytes += len(data)
        self._write_one(data)

    def pong(self, data: bytes) -> None:
        """Answer a ping."""
        self._write_one(pong(data))

    def _write_one(self, data: bytes) -> None:
        """Write a frame that is never dropped; a batch of one would take 2 us more."""
        is_fast = self.send_queue is None and not self.deflates and not self.is_gone
        if is_fast and self._transport.get_write_buffer_size() <= HIGH_WATER_BYTES:
            self._transport.write(data)
        else:
            self.write(Batch.lossless((data,)))

    def write(self, batch: Batch) -> None:
        """See `lane.Sink`. HOT: called once per socket and flush."""
        if self.closing:
            return
        if self.send_queue is None:
            try:
                if self._transport.get_write_buffer_size() <= HIGH_WATER_BYTES:
                    self._transport.write(batch.deflated if self.deflates else batch.data)
                    return
            except Exception:  # a dead socket must not break the flush of the others
                self._lose()
                return
            self.send_queue = SendQueue()
            self._owner.became_slow(self)
        if not self.send_queue.add(batch.items):
            metrics.SLOW_CLOSES.inc()
            self.close(READS_TOO_SLOWLY)

    def flush_queue(self) -> bool:
        """Write as many queued items as the transport accepts. Return whether the queue is empty."""
        queue = self.send_queue
        if self.closing or queue is None:
            return True
        try:
            if self._transport.get_write_buffer_size() > LOW_WATER_BYTES:
                return False
            data = queue.take(HIGH_WATER_BYTES)
            self._transport.write(data)
        except Exception:  # the transport may fail in any way once the client is gone
            self._lose()
            return True
        if queue:
            self._release_sent(queue.taken_number, len(data))
            return False
        self.drop_queue()
        return True

    def hold_until_sent(self, hold: Hold) -> None:
        """Release `hold` once everything written so far is out of the send queue, or dropped with it.

        While other callers wait for budget bytes, a socket that reads too slowly is closed.
        """
        if self.send_queue is None:
            hold.release()
            return
        hold.begin_sending(partial(self.close, READS_TOO_SLOWLY))
        if self._holds is None:
            self._holds = deque()
        self._holds.append((self.send_queue.last_number, hold))

    def _release_sent(self, taken_number: int, sent_bytes: int) -> None:
        holds = self._holds
        while holds and holds[0][0] <= taken_number:
            holds.popleft()[1].release()
        if holds:
            holds[0][1].sent(sent_bytes)

    def mark_closing(self) -> None:
        """Stop writing, and no longer count as a connection of the user."""
        self.closing = True
        self._owner.note_closing(self)

    def _lose(self) -> None:
        """Mark the socket closed: a write found that the client has vanished without a close frame."""
        self.mark_closing()
        metrics.CLOSES.labels("1006", "client").inc()
        self.drop_queue()

    def drop_queue(self) -> None:
        """Discard the send queue, and count the items that it dropped."""
        if self.send_queue is not None:
            metrics.SHED.inc(self.send_queue.dropped)
            metrics.CONFLATED.inc(self.send_queue.conflated)
            self.send_queue = None
        holds, self._holds = self._holds, None
        for _, hold in holds or ():
            hold.release()

    # Subscriptions --------------------------------------------------------------------------------------------------

    def subscribed(self, channel: str) -> None:
        """Record a subscription that was answered."""
        if channel not in self.session.subscriptions:
            self.session.subscriptions.add(channel)
            metrics.SUBSCRIPTIONS.inc()

    def unsubscribed(self, channel: str) -> None:
        """See `lane.Sink`."""
        if channel in self.session.subscriptions:
            self.session.subscriptions.discard(channel)
            metrics.SUBSCRIPTIONS.dec()

    def subscribed_prices(self, symbol: str, max_rate: float) -> None:
        """Record the subscription of a symbol's prices."""
        if symbol not in self.session.symbols:
            metrics.SUBSCRIPTIONS.inc()
        self.session.symbols[symbol] = max_rate

    def unsubscribed_prices(self, symbol: str) -> None:
        """Record the end of the subscription of a symbol's prices."""
        if self.session.symbols.pop(symbol, None) is not None:
            metrics.SUBSCRIPTIONS.dec()

    # Closing --------------------------------------------------------------------------------------------------------

    def close_for_resume(self) -> None:
        """See `lane.Sink`."""
        self.close(Close(CloseCode.OVERLOADED, "could not be brought up to date"))

    async def finish(self, close: Close, within_s: float) -> None:
        """Begin no more requests, and close once those in flight are answered, or after `within_s`."""
        self.in_flight.shut()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self.in_flight.wait_idle()
        finally:
            self.close(close)
            self.in_flight.reopen()

    def close(self, close: Close) -> None:
        """Send the last frame and close; nothing is written after it.

        The frame overtakes the send queue of a slow socket. It is lost only if the transport already holds 1 MB.
        """
        if self.closing:
            return
        self.mark_closing()
        if close.frame is not None:
            with suppress(Exception):  # the close below must run even if the transport fails
                if self._transport.get_write_buffer_size() <= FAREWELL_BUFFER_MAX_BYTES:
                    self._transport.write(text_frame(close.frame))
        metrics.CLOSES.labels(close.code, "server").inc()
        self.drop_queue()
        self._link.shut(close.code, close.reason)
