"""One process's connection to RabbitMQ, re-established whenever it is lost.

At each connection it restores queues, bindings and consumers, and then runs the `on_connected` hooks, which recover
what their owners missed:

    connect -> exchanges, durable queues -> private queues -> echo -> `link` is set -> consumers -> on_connected
    lost    -> `link` is None -> consumers forget their deliveries -> on_disconnected -> close -> connect
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from shared.backoff import Backoff
from shared.bus.amqp import CALL_TIMEOUT_S, CONNECTION_LOST_ERRORS, translate_channel_closed
from shared.bus.broker_connection import BrokerConnection
from shared.bus.consumer import Consumer
from shared.bus.echo import Echo
from shared.bus.hosts import BrokerHosts
from shared.bus.private_queue import PrivateQueue
from shared.bus.topology import DELIVERIES, EXCHANGES, queues
from shared.errors import Unavailable
from shared.telemetry import logs, metrics

log = logs.get(__name__)

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 1.0
CONNECT_TIMEOUT_S = 30.0  # queues, bindings and consumers included


class KeptConnection:
    """The connection of one process; `link` is None while there is none that can be used."""

    def __init__(self, url: str, name: str, *, declares_queues: bool = True) -> None:
        self.name = name
        self.declares_queues = declares_queues
        self.link: BrokerConnection | None = None
        self.on_connected: list[Callable[[], Awaitable[None]]] = []
        self.on_disconnected: list[Callable[[], object]] = []  # run before the next connection
        self.consumers: list[Consumer] = []
        self.is_leaving = False
        self._hosts = BrokerHosts(url)
        self._opened: BrokerConnection | None = None  # `link`, or the connection that is being set up
        self._connected = asyncio.Event()
        self._connections = 0
        self._echo = Echo(name)
        self._private_queues = [self._echo.queue]

    @property
    def is_connected(self) -> bool:
        """Return whether the broker can be reached now."""
        return self.link is not None

    async def wait_connected(self) -> None:
        """Wait for a connection."""
        await self._connected.wait()

    @asynccontextmanager
    async def reaching(self, action: str, timeout_s: float | None = CALL_TIMEOUT_S) -> AsyncIterator[BrokerConnection]:
        """Yield the connection; raise Unavailable without one, and when it is lost."""
        if self.link is None:
            raise Unavailable("not connected to the broker")
        try:
            async with asyncio.timeout(timeout_s):
                with translate_channel_closed():
                    yield self.link
        except CONNECTION_LOST_ERRORS as error:
            raise Unavailable(f"could not {action}: {error or type(error).__name__}") from error

    def drop(self, reason: str) -> None:
        """Replace the connection, because this process can no longer rely on it. Does nothing while disconnected."""
        if self.link is not None:
            log.warning("broker_connection_dropped", reason=reason)
            self.link.closed.set()

    def add_private_queue(self, queue: PrivateQueue) -> None:
        """Declare and bind a queue of this process at each connection from the next one."""
        self._private_queues.append(queue)

    async def add_consumer(self, consumer: Consumer) -> None:
        """Feed a consumer, now and at each later connection."""
        self.consumers.append(consumer)
        if (link := self.link) is None:
            return
        try:
            with translate_channel_closed():
                await link.consume(consumer)
        except CONNECTION_LOST_ERRORS:
            link.closed.set()  # replace a connection that cannot consume

    async def stop_consumer(self, consumer: Consumer) -> None:
        """Stop a consumer: finish the batches in hand and return the rest to the queue."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
        if self._opened is not None:
            self._opened.release_queue(consumer.queue)
        with suppress(*CONNECTION_LOST_ERRORS):
            await consumer.stop()

    async def run(self) -> None:
        """Stay connected until cancellation, or until the first loss after `is_leaving` was set."""
        backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        first = True
        try:
            while not self.is_leaving:  # aio-pika may swallow a cancellation
                if (link := await self._try_connect(backoff)) is None:
                    continue
                metrics.BUS_RECONNECTS.inc(0 if first else 1)
                first = False
                if not self.is_leaving:
                    await link.closed.wait()
                log.warning("broker_connection_lost")
                await self._disconnect()
        finally:
            await self._disconnect()

    async def watch_echo(self) -> None:
        """Send a line to this process twice a second; replace the connection if none comes back in time."""
        while not self.is_leaving:
            await self._echo.until_next()
            if self.link is None:
                continue
            if self._echo.is_overdue():
                self.drop("no echo through the broker")
            else:
                self._echo.send(self.link)

    async def _try_connect(self, backoff: Backoff) -> BrokerConnection | None:
        """Return a connection with everything restored; if that fails, return None after a delay."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                with translate_channel_closed():
                    link = await self._connect()
        except CONNECTION_LOST_ERRORS as error:
            delay_s = backoff.next_s()
            log.warning("broker_unreachable", reason=str(error) or type(error).__name__, retry_in_s=delay_s)
            await self._disconnect()
            await asyncio.sleep(delay_s)
            return None
        log.info("broker_connected")
        backoff.reset()
        return link

    async def _connect(self) -> BrokerConnection:
        self._opened = link = await BrokerConnection.open(self._hosts, self.name)
        for name, kind in EXCHANGES:
            await link.declare_exchange(name, kind)
        if self.declares_queues:
            for spec in queues():
                await link.declare(spec)
        self._connections += 1
        for queue in self._private_queues:
            await self._open_private(link, queue)
        await self._echo.round_trip(link)
        self.link = link  # before the first consumer, whose replies need it
        self._connected.set()
        metrics.BUS_CONNECTED.set(1)
        for consumer in list(self.consumers):
            await link.consume(consumer)
        for hook in self.on_connected:
            await hook()
        return link

    async def _open_private(self, link: BrokerConnection, queue: PrivateQueue) -> None:
        queue.rename(self._connections)
        await link.declare_private(queue.name, queue.arguments)
        for exchange, key in sorted({*queue.bindings, (DELIVERIES, queue.name)}):  # its name: answers to this process
            await link.bind(queue.name, exchange, key)
        await link.listen(queue.name, queue.on_body)

    async def _disconnect(self) -> None:
        self._connected.clear()
        metrics.BUS_CONNECTED.set(0)
        link, self._opened, self.link = self._opened, None, None
        for consumer in self.consumers:
            consumer.connection_lost()
        for forget in self.on_disconnected:
            forget()
        if link is not None:
            await link.close()
