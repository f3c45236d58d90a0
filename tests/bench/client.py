"""A WebSocket client on asyncio.Protocol: no coroutine, task or timer per socket."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from tests.bench.counting import CountedPlace
from tests.bench.marks import now_us
from tests.bench.roomlog import LogPosition
from tests.bench.wire import CLOSE, PING, PONG, TEXT, BenchFrame, FrameScanner, client_frame, upgrade_request


class Dialect(Protocol):
    """The exchange on a socket until it is subscribed; each server has its own."""

    path: str
    protocol: str | None

    def opened(self, client: "BenchSocket") -> None:
        """Handle the completed upgrade."""

    def take(self, client: "BenchSocket", frame: BenchFrame) -> None:
        """Handle a frame. Calls `client.joined()` once the socket is subscribed."""


class BenchSocket(asyncio.Protocol):
    """One socket.

    `on_frame` gets every frame; or, once the socket has joined, `place` or `counted` gets the raw bytes.
    """

    def __init__(self, host: str, port: int, dialect: Dialect) -> None:
        self.dialect = dialect
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun_us = now_us()
        self.joined_us = 0
        self.place: LogPosition | None = None
        self.counted: CountedPlace | None = None
        self.on_frame: Callable[[BenchSocket, BenchFrame], None] | None = None
        self.on_lost: Callable[[BenchSocket], None] | None = None
        self.close_code: int | None = None
        self.is_open = False
        self._upgrade = upgrade_request(host, port, dialect.path, dialect.protocol)
        self._head: bytes | None = b""
        self._scanner = FrameScanner()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._upgrade)

    def data_received(self, data: bytes) -> None:
        """Pass on what was read. HOT."""
        if self.place is not None:
            self.place.feed(data, now_us())
        elif self.counted is not None:
            self.counted.feed(data, now_us())
        elif self._head is None:
            self._take(data)
        else:
            self._upgraded(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Record the loss of the socket."""
        self.is_open = False
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"closed with {self.close_code} before it listened"))
        if self.on_lost is not None:
            self.on_lost(self)

    def send(self, payload: bytes) -> None:
        """Send a text frame."""
        self.write(client_frame(payload, TEXT))

    def write(self, data: bytes) -> None:
        """Send raw bytes."""
        if self.transport is not None:
            self.transport.write(data)

    def joined(self) -> None:
        """Record that the socket is subscribed."""
        self.joined_us = now_us()
        if not self.ready.done():
            self.ready.set_result(None)

    def leave(self) -> None:
        """Drop the socket; its end is expected then."""
        self.on_lost = None
        if self.transport is not None:
            self.transport.abort()

    def _upgraded(self, data: bytes) -> None:
        head = (self._head or b"") + data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            self._head = head
            return
        self._head = None
        if not head.startswith(b"HTTP/1.1 101"):
            self.ready.set_exception(ConnectionError(head[:200].decode(errors="replace").splitlines()[0]))
            self.leave()
            return
        self.is_open = True
        self.dialect.opened(self)
        if end + 4 < len(head):
            self._take(head[end + 4 :])

    def _take(self, data: bytes) -> None:
        for frame in self._scanner.feed(data):
            if frame.opcode == PING:
                self.write(client_frame(frame.payload, PONG))
            elif frame.opcode == CLOSE:
                self.close_code = int.from_bytes(frame.payload[:2], "big")
            elif not self.ready.done():
                self.dialect.take(self, frame)
            elif self.on_frame is not None:
                self.on_frame(self, frame)
