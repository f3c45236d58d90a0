"""One connection after its upgrade: reads its frames in order, and ends it.

    OPEN ── `shut` ────> CLOSING: the server has sent a close frame;
     │                            it discards frames until the client's close frame, for at most 2 s
     ├── violation ────> FAILED: the server has sent a close frame and FIN;
     │                           it discards all input until the client closes, for at most 2 s
     └── close frame ──> ENDED: it is answered, and the connection closed

The protocol object replaces aiohttp's, so that an open connection keeps no request, no coroutine and no task: 15 KB
less. While a message's work runs, no further frame is parsed: one more read is buffered, then the transport is paused.
A connection with many buffered frames lets others run after FRAMES_PER_TURN.
"""

import asyncio
from collections.abc import Coroutine
from enum import Enum, auto
from typing import Any, Protocol, assert_never

from gateway.fanout.wire import close_frame
from gateway.live.frame_reader import (
    NO_STATUS,
    CloseFrame,
    Fragment,
    FrameReader,
    Message,
    PingFrame,
    PongFrame,
    ProtocolViolation,
)
from gateway.live.socket import Socket

FRAMES_PER_TURN = 32
CLOSE_TIMEOUT_S = 2.0
ABNORMAL = 1006  # no close frame arrived

Work = Coroutine[Any, Any, None]


class LinkState(Enum):
    """See the diagram at the top."""

    OPEN = auto()
    CLOSING = auto()
    FAILED = auto()
    ENDED = auto()


Received = str | PingFrame | PongFrame | Fragment  # a fragment only to be counted


class Receiver(Protocol):
    """The handler of the messages of all connections. Its methods raise nothing, and neither does the work."""

    def receive(self, socket: Socket, message: Received) -> Work | None:
        """Process a message. Return any work to await before the next message is read."""

    def violated(self, socket: Socket, violation: ProtocolViolation) -> None:
        """Close a connection that has violated the protocol."""

    def ended(self, socket: Socket, code: int) -> None:
        """Forget a connection. `code` is the client's close code.

        Nothing more is read from the connection, and no work for it is awaited.
        """

    def spawn(self, work: Work) -> "asyncio.Task[None]":
        """Start a task."""


class WebSocket(asyncio.Protocol):
    """The protocol of one connection's transport."""

    __slots__ = (
        "_client_code",
        "_is_lost",
        "_is_paused",
        "_reader",
        "_receiver",
        "_socket",
        "_state",
        "_timer",
        "_transport",
        "_turn",
        "_work",
    )

    _socket: Socket

    def __init__(self, transport: asyncio.Transport, reader: FrameReader, receiver: Receiver) -> None:
        self._transport = transport
        self._reader = reader
        self._receiver = receiver
        self._state = LinkState.OPEN
        self._work: asyncio.Task[None] | None = None
        self._turn: asyncio.Handle | None = None  # the next turn, if frames are buffered
        self._timer: asyncio.TimerHandle | None = None
        self._client_code = ABNORMAL
        self._is_paused = False
        self._is_lost = False

    def begin(self, socket: Socket, data: bytes) -> None:
        """Begin to read for `socket`, with the bytes that arrived during the upgrade."""
        self._socket = socket
        if data:
            self.data_received(data)

    # The transport --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Process the frames that are complete."""
        if self._state is LinkState.FAILED:
            return
        self._reader.feed(data)
        if self._turn is None and self._may_read():
            self._read()
        else:
            self._pause()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the connection after processing the messages that have arrived."""
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._turn is None and self._work is None:
            self._end()

    # Reading --------------------------------------------------------------------------------------------------------

    def _may_read(self) -> bool:
        """Return whether to parse the next frame: not while work runs, unless frames are discarded anyway."""
        return self._work is None or self._state is not LinkState.OPEN

    def _read(self) -> None:
        """Process at most FRAMES_PER_TURN frames."""
        self._turn = None
        for _ in range(FRAMES_PER_TURN):
            if self._state is LinkState.FAILED or self._state is LinkState.ENDED:
                break
            if not self._may_read():
                return
            try:
                message = self._reader.next()
            except ProtocolViolation as violation:
                self._fail(violation)
                break
            if message is None:
                break
            self._take(message)
        else:
            self._pause()
            self._turn = asyncio.get_running_loop().call_soon(self._read)
            return
        self._resume()
        if self._is_lost and self._work is None:
            self._end()

    def _take(self, message: Message) -> None:
        match message:
            case str() | PingFrame() | PongFrame() | Fragment():
                if (
                    self._state is LinkState.OPEN
                    and (work := self._receiver.receive(self._socket, message)) is not None
                ):
                    self._work = self._receiver.spawn(work)
                    self._work.add_done_callback(self._worked)
            case CloseFrame(code):
                self._answer_close(code)
            case other:
                assert_never(other)

    def _worked(self, _: "asyncio.Task[None]") -> None:
        """Continue reading."""
        self._work = None
        if self._turn is None:
            self._read()

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    # Ending ---------------------------------------------------------------------------------------------------------

    def shut(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection once the client has answered it. See `SocketLink`."""
        if self._state is not LinkState.OPEN:
            return
        self._state = LinkState.CLOSING
        self._abort_later()
        if not self._transport.is_closing():
            self._transport.write(close_frame(code, reason))
        if self._work is not None and self._turn is None:  # unread frames are discarded, so they need not wait for it
            self._turn = asyncio.get_running_loop().call_soon(self._read)

    def _answer_close(self, code: int) -> None:
        """Answer the client's close frame, unless it is an answer itself, and close."""
        if self._state is LinkState.OPEN:
            self._client_code = code
            self._abort_later()
            if not self._transport.is_closing():
                self._transport.write(close_frame(None if code == NO_STATUS else code))
        self._state = LinkState.ENDED
        self._transport.close()

    def _fail(self, violation: ProtocolViolation) -> None:
        """Close only our direction: with unread input, a closed connection would be reset and lose the close frame."""
        self._receiver.violated(self._socket, violation)
        self._state = LinkState.FAILED
        if not self._transport.is_closing():
            self._transport.write_eof()

    def _abort_later(self) -> None:
        if self._timer is None and not self._is_lost:
            self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def _end(self) -> None:
        self._state = LinkState.ENDED
        socket = self._socket
        del self._socket  # no cycle is left to the garbage collector, which runs rarely
        self._receiver.ended(socket, self._client_code)
