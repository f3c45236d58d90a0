"""Counts of AMQP frames and database commands, from proxies between the services and their servers.

The proxies cost CPU and latency, so a scenario runs them in a separate pass, in which only the counts mean something.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from tests.support.connection_tasks import run_apart
from tests.support.mongo_wire import HEADER_BYTES, WireHeader, command_label
from tests.support.tcp_relay import Streams, relay

TO_SERVER, FROM_SERVER = "→", "←"
START_TIMEOUT_S = 10.0
_READ_BYTES = 262_144
_PROTOCOL_HEADER_BYTES = 8
_FRAME_HEAD_BYTES = 7
_KINDS = {2: "content header", 3: "content body", 8: "heartbeat"}
_CLASSES = {10: "connection", 20: "channel", 40: "exchange", 50: "queue", 60: "basic", 85: "confirm", 90: "tx"}
_METHODS = {
    (20, 10): "open",
    (20, 11): "open-ok",
    (20, 40): "close",
    (20, 41): "close-ok",
    (50, 10): "declare",
    (50, 11): "declare-ok",
    (50, 20): "bind",
    (50, 30): "purge",
    (50, 40): "delete",
    (60, 10): "qos",
    (60, 20): "consume",
    (60, 30): "cancel",
    (60, 40): "publish",
    (60, 50): "return",
    (60, 60): "deliver",
    (60, 70): "get",
    (60, 71): "get-ok",
    (60, 72): "get-empty",
    (60, 80): "ack",
    (60, 90): "reject",
    (60, 120): "nack",
    (85, 10): "select",
    (85, 11): "select-ok",
}


class WireKind(NamedTuple):
    """What one proxy counted: the port of the client's socket, the direction, and the kind of frame or command."""

    client_port: int
    direction: str
    kind: str


class WireParser(Protocol):
    """A parser of one direction of one connection."""

    def feed(self, data: bytes) -> list[str]:
        """Process what was read and return the kinds that it completed."""


class AmqpFrames:
    """A parser of AMQP 0-9-1 frames. The client's direction begins with a protocol header."""

    def __init__(self, direction: str) -> None:
        self._waiting = b""
        self._skip = _PROTOCOL_HEADER_BYTES if direction == TO_SERVER else 0

    def feed(self, data: bytes) -> list[str]:
        """Return the kind of each frame that is complete."""
        data = self._waiting + data
        at, kinds = 0, []
        if self._skip:
            if len(data) < self._skip:
                self._waiting = data
                return []
            at, self._skip = self._skip, 0
        while len(data) - at >= _FRAME_HEAD_BYTES:
            end = at + _FRAME_HEAD_BYTES + int.from_bytes(data[at + 3 : at + 7]) + 1
            if end > len(data):
                break
            kinds.append(_KINDS.get(data[at]) or _method(data, at + _FRAME_HEAD_BYTES))
            at = end
        self._waiting = data[at:]
        return kinds


def _method(data: bytes, at: int) -> str:
    class_id, method_id = int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 2 : at + 4])
    name = _METHODS.get((class_id, method_id), str(method_id))
    return f"{_CLASSES.get(class_id, class_id)}.{name}"


class DatabaseCommands:
    """A parser of MongoDB's messages. Only commands count, not their replies."""

    def __init__(self, direction: str) -> None:
        self._waiting = b""
        self._counts = direction == TO_SERVER

    def feed(self, data: bytes) -> list[str]:
        """Return the name and the collection of each command that is complete."""
        if not self._counts:
            return []
        data = self._waiting + data
        at, kinds = 0, []
        while len(data) - at >= HEADER_BYTES:
            end = at + WireHeader.of(data[at : at + HEADER_BYTES]).size_bytes
            if end > len(data):
                break
            kinds.append(command_label(data[at:end]))
            at = end
        self._waiting = data[at:]
        return kinds


class CountingProxy:
    """A proxy on a free port, in its own thread and event loop."""

    def __init__(self, upstream: tuple[str, int], parser: Callable[[str], WireParser]) -> None:
        self.port = 0
        self._upstream = upstream
        self._parser = parser
        self._counts: Counter[WireKind] = Counter()
        self._lock = threading.Lock()
        self._listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def counts(self) -> Counter[WireKind]:
        """Return the counts so far."""
        with self._lock:
            return Counter(self._counts)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(START_TIMEOUT_S):
            raise TimeoutError("the counting proxy does not listen")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await run_apart(self._relay(reader, writer), self._tasks)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server, to_client = (
            partial(self._pass, client_port=writer.get_extra_info("peername")[1], direction=direction)
            for direction in (TO_SERVER, FROM_SERVER)
        )
        await relay(Streams(reader, writer), self._connect(), to_server, to_client)

    async def _connect(self) -> Streams:
        return Streams(*await asyncio.open_connection(*self._upstream))

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client_port: int, direction: str
    ) -> None:
        parser = self._parser(direction)
        while data := await source.read(_READ_BYTES):
            sink.write(data)
            await sink.drain()
            with self._lock:
                for kind in parser.feed(data):
                    self._counts[WireKind(client_port, direction, kind)] += 1


def by_service(counted: Mapping[WireKind, int], owners: Mapping[int, str]) -> Counter[tuple[str, str, str]]:
    """Return the counts by service, direction and kind; `owners` names the service of each client port."""
    found: Counter[tuple[str, str, str]] = Counter()
    for (port, direction, kind), count in counted.items():
        found[owners.get(port, "?"), direction, kind] += count
    return found
