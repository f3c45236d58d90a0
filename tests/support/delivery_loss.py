"""A TCP proxy in front of a broker that drops chosen deliveries, like a broker that drops the head of a full queue.

    async with lossy_broker(amqp_url) as broker:
        ...  # start a gateway with AMQP_URL=broker.url
        broker.loses = lambda body: b"a text" in body

A delivery is lost as a whole: its method, header and body frames. Everything else passes unchanged.

After `hold` nothing is read from the broker until `resume`, so that the client's queues fill. The broker keeps some 200
messages and what the sockets take out of the queue.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

from tests.support.connection_tasks import run_apart
from tests.support.tcp_relay import Streams, relay

_HEAD_BYTES = 7
_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER = bytes([0, 60, 0, 60])
_RECEIVE_BUFFER_BYTES = 64 * 1024


class DeliveryFilter:
    """The frames from the broker on one connection. `feed` returns the bytes for the client. Pure."""

    def __init__(self, loses: Callable[[bytes], bool]) -> None:
        self._loses = loses
        self._waiting = b""
        self._pending: dict[bytes, list[bytes]] = {}  # frames of an incomplete delivery, by channel
        self._missing: dict[bytes, int] = {}  # bytes of its body
        self.lost = 0

    def feed(self, data: bytes) -> bytes:
        """Process the bytes read."""
        data = self._waiting + data
        at, passed = 0, []
        while len(data) - at >= _HEAD_BYTES:
            end = at + _HEAD_BYTES + int.from_bytes(data[at + 3 : at + 7]) + 1
            if end > len(data):
                break
            passed.append(self._frame(data[at:end]))
            at = end
        self._waiting = data[at:]
        return b"".join(passed)

    def _frame(self, frame: bytes) -> bytes:
        kind, channel, payload = frame[0], frame[1:3], frame[_HEAD_BYTES:-1]
        if kind == _METHOD and payload.startswith(_DELIVER):
            self._pending[channel] = [frame]
            return b""
        if channel not in self._pending:
            return frame
        self._pending[channel].append(frame)
        if kind == _HEADER:
            self._missing[channel] = int.from_bytes(payload[4:12])
        elif kind == _BODY:
            self._missing[channel] -= len(payload)
        return b"" if self._missing[channel] else self._whole(channel)

    def _whole(self, channel: bytes) -> bytes:
        frames = self._pending.pop(channel)
        body = b"".join(frame[_HEAD_BYTES:-1] for frame in frames if frame[0] == _BODY)
        if self._loses(body):
            self.lost += 1
            return b""
        return b"".join(frames)


class LossyBroker:
    """The proxy. `url` is its address for AMQP clients; `loses` decides on the body of each delivery."""

    def __init__(self, upstream_url: str) -> None:
        self._upstream = urlsplit(upstream_url)
        self.url = ""
        self.loses: Callable[[bytes], bool] = lambda body: False
        self._filters: list[DeliveryFilter] = []
        self._reads = asyncio.Event()
        self._reads.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def lost(self) -> int:
        """Return the number of lost deliveries."""
        return sum(filtered.lost for filtered in self._filters)

    @property
    def connections(self) -> int:
        """Return the number of connections so far."""
        return len(self._filters)

    def hold(self) -> None:
        """Read nothing from the broker until `resume`."""
        self._reads.clear()

    def resume(self) -> None:
        """Pass on the broker's bytes."""
        self._reads.set()

    def listen_on(self, port: int) -> None:
        """Set the address."""
        parts = self._upstream
        self.url = f"amqp://{parts.username}:{parts.password}@127.0.0.1:{port}/"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a client."""
        await run_apart(self._serve(reader, writer), self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        filtered = DeliveryFilter(lambda body: self.loses(body))
        to_server = partial(_copy, change=lambda data: data, may_read=_always())
        to_client = partial(_copy, change=filtered.feed, may_read=self._reads)
        await relay(Streams(reader, writer), self._connect(filtered), to_server, to_client)

    async def _connect(self, filtered: DeliveryFilter) -> Streams:
        """Connect to the broker with a small receive buffer."""
        connected = socket.socket()
        connected.setblocking(False)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        address = self._upstream.hostname, self._upstream.port
        await asyncio.get_running_loop().sock_connect(connected, address)
        streams = Streams(*await asyncio.open_connection(sock=connected))
        self._filters.append(filtered)
        return streams

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _always() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def _copy(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, change: Callable[[bytes], bytes], may_read: asyncio.Event
) -> None:
    with suppress(OSError):
        while data := await source.read(65_536):
            await may_read.wait()
            sink.write(change(data))
            await sink.drain()


@asynccontextmanager
async def lossy_broker(upstream_url: str) -> AsyncIterator[LossyBroker]:
    """Yield a proxy on a free port in front of a broker."""
    broker = LossyBroker(upstream_url)
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    broker.listen_on(server.sockets[0].getsockname()[1])
    try:
        yield broker
    finally:
        server.close()
        await broker.close()
        await server.wait_closed()
