"""Accepts connections at the rate that `Pace` allows; the others wait in the kernel's queue.

uvloop and asyncio accept all pending connections in one iteration of the loop, so 5,000 clients at once would
delay every delivery. A connection beyond the bound of `OpenConnections` is answered with its refusal, or closed at once
while many others are being refused.
"""

import asyncio
import resource
import socket
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from gateway import metrics
from gateway.admission.admission_queue import AdmissionQueue
from gateway.admission.open_connections import OpenConnections
from gateway.admission.pace import ON_TIME_S, Pace
from gateway.admission.refused import Refused
from gateway.http.refusing import Refusals
from shared.telemetry import logs
from shared.waiting import until_next

log = logs.get(__name__)

BACKLOG = 4096
ACCEPTS_MAX = 16  # connections accepted in one iteration of the loop
PROBE_INTERVAL_S = 0.05
IDLE_INTERVAL_S = 0.5  # while no client connects and the loop is on time
LOOK_AGAIN_S = 0.02


async def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for all addresses of a host name. Raises OSError; then none is left open."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listeners.append(listener := socket.socket(family, kind, protocol))
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


async def measure_loop_lag(pace: Pace, queue: AdmissionQueue) -> None:
    """Measure the lag of the event loop, and grant slots to clients that wait for set-up, until cancelled."""
    late_s = 0.0
    while True:
        is_idle = late_s <= ON_TIME_S and pace.is_idle(time.monotonic())
        late_s = await until_next(IDLE_INTERVAL_S if is_idle else PROBE_INTERVAL_S)
        pace.measured(late_s)
        queue.grant()
        metrics.ARRIVING_MAX.set(pace.limit)


class Acceptor:
    """Accepts connections of one listening socket, each with a new protocol from `make_protocol(address)`."""

    def __init__(
        self,
        listener: socket.socket,
        pace: Pace,
        connections: OpenConnections,
        make_protocol: Callable[[str], asyncio.BaseProtocol],
    ) -> None:
        self._listener = listener
        self._pace = pace
        self._connections = connections
        self._refusals = Refusals()
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._is_reading = False
        self._paused = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept until cancelled; then close the listener."""
        try:
            while True:
                if self._pace.has_room(time.monotonic()):
                    self._read()
                    await self._paused.wait()
                await asyncio.sleep(LOOK_AGAIN_S)
        finally:
            self._pause()
            self._listener.close()
            for task in self._opening:
                task.cancel()

    def _read(self) -> None:
        self._is_reading = True
        self._paused.clear()
        self._loop.add_reader(self._listener, self._accept)

    def _pause(self) -> None:
        self._paused.set()
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        now_s = time.monotonic()
        for _ in range(ACCEPTS_MAX):
            if not self._pace.has_room(now_s):
                self._pause()
                return
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of file descriptors; `run` tries again
                log.error("accept_failed", reason=str(error))
                self._pause()
                return
            connection.setblocking(False)
            self._take(connection, str(peer[0]), now_s)

    def _take(self, connection: socket.socket, peer: str, now_s: float) -> None:
        try:
            address = self._connections.arrive(peer, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        except Refused as refused:
            metrics.CONNECTIONS_REFUSED.labels(refused.reason).inc()
            if (refusing := self._refusals.protocol(refused)) is None:
                connection.close()
            else:
                self._start(self._open(connection, refusing, refusing.abandoned))
            return
        protocol = self._make_protocol(address)
        self._pace.arrived(protocol, now_s)
        self._start(self._open(connection, protocol, partial(self._abandoned, protocol, address)))

    def _start(self, opening: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(opening)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _abandoned(self, protocol: asyncio.BaseProtocol, address: str) -> None:
        self._pace.settled(protocol)
        self._connections.left(address)

    async def _open(
        self, connection: socket.socket, protocol: asyncio.BaseProtocol, abandoned: Callable[[], None]
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except BaseException as error:
            abandoned()
            connection.close()
            if not isinstance(error, OSError):
                raise
            log.info("connection_failed_to_open", reason=str(error))
