"""The bus: one broker connection per process. It batches outgoing lines into bodies and splits incoming ones.

- `publish` gathers lines by destination and resolves when the broker has confirmed their body.
- `ask` sends a request; its future is the reply, until the request's deadline. `request` awaits and reads it.
- `consume` hands batches of lines to a handler, in order, and settles them (see `shared.bus.consumer`).
- `private_queue` declares a queue of this process and hands its bodies to a plain function, unacknowledged.
- `send`, `send_deliveries` publish without a confirm: the hot path.

The bus reconnects for ever, with backoff. Each time it restores queues, bindings and consumers, and then runs the
`on_connected` hooks, since only they know the missed items. Publishing fails at once with Unavailable while the bus is
disconnected or the broker confirms nothing. A caller that must not lose a line does not acknowledge the message that
caused it; the redelivery repeats the publish.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from shared.backoff import Backoff
from shared.bus.amqp import (
    CALL_TIMEOUT_S,
    CONNECTION_LOST_ERRORS,
    BrokerConnection,
    DeadLetter,
    NoQueueError,
    translate_channel_closed,
)
from shared.bus.batching import split_lines
from shared.bus.consumer import Consumer, Handler
from shared.bus.delivery import ANSWERS, Delivery, DeliveryKind
from shared.bus.hosts import BrokerHosts
from shared.bus.line_sender import DEFAULT_EXCHANGE, LineSender
from shared.bus.pending_requests import PendingRequests, read_reply
from shared.bus.private_queue import PrivateQueue
from shared.bus.topology import (
    DEAD,
    DEAD_LETTERS,
    DELIVERIES,
    EXCHANGES,
    PRIVATE_QUEUE,
    REQUESTS,
    Arguments,
    queue_label,
    queues,
    shard_key,
    shard_of,
)
from shared.commands.command import Reply, ServiceRequest, request_id_of, request_ids_of
from shared.encoding import to_json
from shared.errors import Unavailable
from shared.telemetry import logs, metrics, tracing
from shared.times import now_ms
from shared.waiting import until_next

log = logs.get(__name__)

R = TypeVar("R")
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 1.0
CONNECT_TIMEOUT_S = 30.0  # queues, bindings and consumers included
ECHO_INTERVAL_S = 0.5
ECHO_TIMEOUT_S = 2.5
STOOD_STILL_S = 1.0  # a process that was frozen for that long distrusts its connection
DELIVERIES_BODY_MAX_BYTES = 1024 * 1024
DEADLINE_SWEEP_S = 0.25
IDLE_SWEEP_S = 0.5  # while no request is unanswered; deadlines are seconds away
MEASURE_INTERVAL_S = 5.0
_FIELD = re.compile(r"[\w.\[\]]{1,64}", re.ASCII)


class Bus:
    """One process's connection to RabbitMQ. Use it as an async context manager.

    `name` appears in the broker's list of connections and in the names of private queues. It must be unique: a node id.
    """

    def __init__(self, url: str, name: str, *, request_timeout_s: float = 5.0) -> None:
        self.name = name
        self.request_timeout_s = request_timeout_s
        self.on_connected: list[Callable[[], Awaitable[None]]] = []
        self.on_disconnected: list[Callable[[], object]] = []  # run before the next connection
        self._hosts = BrokerHosts(url)
        self._tasks = asyncio.TaskGroup()
        self._background: set[asyncio.Task[None]] = set()
        self._leaving = False
        self._link: BrokerConnection | None = None
        self._connected = asyncio.Event()
        self._consumers: list[Consumer] = []
        self._private_queues: list[PrivateQueue] = []
        self._connections = 0
        self._pending = PendingRequests()
        self._sender = LineSender(self._tasks, self._pending.fail)
        self._reply_queue = self.private_queue("reply", self._pending.take)
        self._echoed_at_s = 0.0
        self._echoed = asyncio.Event()
        self._echo_queue = self.private_queue("echo", self._on_echo)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for work in (self._keep_connected(), self._keep_deadlines(), self._measure(), self._watch_echo()):
            self.spawn(work)
        return self

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task, which is cancelled when the bus closes."""
        task = self._tasks.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in list(self._consumers):
            await self.stop(consumer)
        self._leaving = True
        for task in list(self._background):
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    # Connection -----------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Return whether the broker can be reached now."""
        return self._connected.is_set()

    async def readiness(self) -> str | None:
        """Return None when connected with every queue consumed, else the reason."""
        if not self.is_connected:
            return "broker: not connected"
        missing = [consumer.queue for consumer in self._consumers if not consumer.is_attached]
        return f"broker: not consumed yet: {', '.join(sorted(missing))}" if missing else None

    async def wait_connected(self) -> None:
        """Wait for a connection."""
        await self._connected.wait()

    async def _keep_connected(self) -> None:
        backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        first = True
        try:
            while not self._leaving:  # aio-pika may swallow a cancellation
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_S):
                        with translate_channel_closed():
                            link = await self._connect()
                except CONNECTION_LOST_ERRORS as error:
                    delay_s = backoff.next_s()
                    log.warning("broker_unreachable", reason=str(error) or type(error).__name__, retry_in_s=delay_s)
                    await self._disconnect()
                    await asyncio.sleep(delay_s)
                    continue
                log.info("broker_connected")
                metrics.BUS_RECONNECTS.inc(0 if first else 1)
                backoff.reset()
                first = False
                if not self._leaving:
                    await link.closed.wait()
                log.warning("broker_connection_lost")
                await self._disconnect()
        finally:
            await self._disconnect()

    async def _connect(self) -> BrokerConnection:
        """Connect, and restore queues, bindings and consumers."""
        self._link = link = await BrokerConnection.open(self._hosts, self.name)
        for name, kind in EXCHANGES:
            await link.declare_exchange(name, kind)
        for spec in queues():
            await link.declare(spec)
        self._connections += 1
        for queue in self._private_queues:
            await self._open_private(link, queue)
        await self._await_echo(link)
        self._sender.link = link
        self._connected.set()  # before the first consumer, whose replies need it
        metrics.BUS_CONNECTED.set(1)
        for consumer in list(self._consumers):
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

    async def _await_echo(self, link: BrokerConnection) -> None:
        """Return once a line of this process has come back through the broker. Raises ConnectionError.

        A broker under an alarm (memory, disk) accepts connections and delivers, but reads nothing from a connection
        that publishes, acknowledgements included. A consumer would receive the same messages again at each reconnect,
        until the delivery limit of their queue moves them to realtime.dead.
        """
        self._echoed.clear()
        link.send("", self._echo_queue.name, b"echo")
        waits = [asyncio.ensure_future(event.wait()) for event in (self._echoed, link.closed)]
        try:
            await asyncio.wait(waits, timeout=ECHO_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._echoed.is_set():
            raise ConnectionError("the broker takes no messages; an alarm (memory, disk) may block publishers")

    def drop_connection(self, reason: str) -> None:
        """Replace the connection, on which this process can no longer rely, in any state."""
        if self._link is not None and self.is_connected:
            log.warning("broker_connection_dropped", reason=reason)
            self._link.closed.set()

    async def _watch_echo(self) -> None:
        """Send a line to a queue of this process twice a second; replace the connection if none comes back in time.

        This detects failures that raise no error: a frozen node, a broker that blocks publishers, a stalled consumer.
        The time by which an overloaded loop is late does not count: it says nothing about the broker.
        """
        while not self._leaving:
            late_s = await until_next(ECHO_INTERVAL_S)
            if late_s < STOOD_STILL_S:
                self._echoed_at_s += late_s
            if self._link is None or not self.is_connected:
                continue
            if time.monotonic() - self._echoed_at_s > ECHO_TIMEOUT_S:
                self.drop_connection("no echo through the broker")
            else:
                self._link.send("", self._echo_queue.name, b"echo")

    def _on_echo(self, _: bytes) -> None:
        self._echoed_at_s = time.monotonic()
        self._echoed.set()

    async def _disconnect(self) -> None:
        self._connected.clear()
        metrics.BUS_CONNECTED.set(0)
        link, self._link, self._sender.link = self._link, None, None
        for consumer in self._consumers:
            consumer.connection_lost()
        self._pending.fail_all("the connection to the broker was lost")
        for forget in self.on_disconnected:
            forget()
        if link is not None:
            await link.close()

    @asynccontextmanager
    async def _reaching(self, action: str, timeout_s: float | None = CALL_TIMEOUT_S) -> AsyncIterator[BrokerConnection]:
        """Yield the connection; raise Unavailable without one, and when it is lost."""
        if self._link is None or not self.is_connected:
            raise Unavailable("the broker is not connected")
        try:
            async with asyncio.timeout(timeout_s):
                with translate_channel_closed():
                    yield self._link
        except CONNECTION_LOST_ERRORS as error:
            raise Unavailable(f"could not {action}: {error or type(error).__name__}") from error

    async def _measure(self) -> None:
        """Update the gauges of waiting lines, here and at the broker, until the bus closes.

        A deleted `realtime.dead` is declared again: it has no consumer for the broker to notify.
        """
        while not self._leaving:  # aio-pika may swallow a cancellation
            await until_next(MEASURE_INTERVAL_S)
            with suppress(Unavailable):
                async with self._reaching("declare") as link:
                    await link.declare(DEAD_LETTERS)
            metrics.BUS_GATHERED_BYTES.set(self._sender.waiting_bytes)
            for consumer in list(self._consumers):
                consumer.measure(now_ms())
                with suppress(Unavailable):
                    consumer.measure_depth(await self._depth(consumer.queue))

    async def _depth(self, queue: str) -> int:
        async with self._reaching("measure") as link:
            return await link.depth(queue)

    # Send -----------------------------------------------------------------------------------------------------------

    def publish(
        self, exchange: str, key: str, line: bytes, *, reply_to: str | None = None, expires_at_ms: int | None = None
    ) -> "asyncio.Future[None]":
        """Send a line. The future resolves on the broker's confirm, or raises Unavailable; it may be ignored."""
        return self._sender.gather((exchange, key, reply_to), key, line, expires_at_ms).done

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        """Send a delivery to the gateways that listen to its shard.

        Deliveries to all shards share one destination, and a body goes to every shard that it has a line for.
        A gateway with many sockets listens to most shards anyway, and skips lines of channels that it does not know. At
        3,000 messages per second in 200 rooms this joins about thirty AMQP messages into one.
        """
        shard = shard_key(shard_of(delivery.channel))
        return self._sender.gather((DELIVERIES, None, None), shard, delivery.to_line(), None).done

    def reply(self, reply_to: str, line: bytes) -> "asyncio.Future[None]":
        """Send a reply line. The future is its confirm; if that is ignored, the caller's deadline ends its wait."""
        return self.publish("", reply_to, line)

    # Send without a confirm ----------------------------------------------------------------------------------------

    @property
    def reply_queue(self) -> str:
        """Return the queue for replies to this process; it changes with each connection."""
        return self._reply_queue.name

    @property
    def unsent_bytes(self) -> int:
        """Return the number of bytes sent without a confirm that still wait for the socket."""
        return 0 if self._link is None else self._link.unsent_bytes

    def send(self, exchange: str, key: str, body: bytes, cc: Sequence[str] = ()) -> None:
        """Publish a body once, transiently, or drop it while disconnected. Only for what may be lost. HOT."""
        if self._link is not None and self.is_connected:
            self._link.send(exchange, key, body, cc)
            metrics.BUS_BODIES_SENT.labels(exchange or DEFAULT_EXCHANGE).inc()

    def send_deliveries(self, deliveries: Sequence[Delivery], queues: Sequence[str] = ()) -> None:
        """Publish deliveries and answers in order, unconfirmed, in one body for all gateways concerned. HOT.

        `queues` are the private queues of the gateways to be answered; each is bound to the exchange by its own name.
        Beyond 1 MB, further bodies follow in order. A CONTROL line is never split from the line before it.
        """
        lines: list[bytes] = []
        keys: dict[str, None] = dict.fromkeys(queues)
        size_bytes = 0
        for delivery in deliveries:
            line = delivery.to_line()
            is_full = size_bytes + len(line) > DELIVERIES_BODY_MAX_BYTES
            if lines and is_full and delivery.kind is not DeliveryKind.CONTROL:
                self._send_lines(lines, keys)
                lines, keys, size_bytes = [], dict.fromkeys(queues), 0
            lines.append(line)
            size_bytes += len(line)
            if delivery.kind not in ANSWERS:
                keys[shard_key(shard_of(delivery.channel))] = None
        if lines:
            self._send_lines(lines, keys)

    def _send_lines(self, lines: list[bytes], keys: dict[str, None]) -> None:
        key, *more_keys = keys
        self.send(DELIVERIES, key, b"\n".join(lines), more_keys)
        metrics.BUS_LINES_SENT.labels(DELIVERIES).inc(len(lines))

    async def is_gone(self, queue: str) -> bool:
        """Return whether the broker has no such queue; False if it does not answer in time. Raises Unavailable."""
        async with self._reaching("probe") as link:
            return await link.is_gone(queue)

    async def delete_queue(self, queue: str) -> None:
        """Delete a durable queue of an earlier version with its contents. Raises Unavailable."""
        async with self._reaching("delete") as link:
            await link.delete(queue)

    async def dead_letter(self, body: bytes, *, queue: str, reason: str) -> None:
        """Store an unprocessable body in `realtime.dead`, with the reason and its queue as headers.

        Raises Unavailable, also while there is no such queue.
        """
        headers = {"reason": reason[:1000], "queue": queue, "at": now_ms()}
        await self._sender.publish_confirmed("", DEAD, body, headers=headers, is_persistent=True, is_mandatory=True)
        metrics.BUS_DEAD_LETTERS.labels(queue_label(queue)).inc()
        whose = request_ids_of([body])
        log.warning("dead_letter", queue=queue, field=_field_of(reason), size_bytes=len(body), request_ids=whose)

    async def replay(self, letter: DeadLetter) -> bool:
        """Return a dead letter to its queue; return False if there is no such queue. Raises Unavailable."""
        async with self._reaching("replay") as link:
            try:
                await link.publish("", letter.queue, letter.body, is_persistent=True, is_mandatory=True)
            except NoQueueError:
                return False
        return True

    async def dead_letters(self, settle: Callable[[DeadLetter], Awaitable[bool]]) -> int:
        """Show each dead letter to `settle`, oldest first, and remove those for which it returns True.

        Returns the number of dead letters at the start; later ones are not shown. Raises Unavailable.
        """
        async with self._reaching("read the dead letters", None) as link:
            return await link.dead_letters(settle)

    # Request and reply ----------------------------------------------------------------------------------------------

    def deadline_ms(self) -> int:
        """Return the deadline of a request that starts now."""
        return now_ms() + round(self.request_timeout_s * 1000)

    async def request(self, key: str, request: ServiceRequest, reply: type[R]) -> R:
        """Send a request to a queue of `realtime.commands` and return its reply. The broker drops a late request.

        Raises the worker's Refusal, or Unavailable when no answer arrives in time.
        """
        return read_reply(await self.ask(key, request), reply)

    def ask(self, key: str, request: ServiceRequest) -> "asyncio.Future[Reply]":
        """Send a request and return the future of its reply.

        The future raises Unavailable when the request could not be sent or was not answered by its deadline. HOT: the
        same as `request`, without a coroutine and a timer per request.
        """
        op = request.op
        if (span := tracing.ask(op)) is not None:
            request = msgspec.structs.replace(request, trace=span.trace)
        if logs.details:
            log.debug("command_asked", request_id=request_id_of(request), op=op, key=key, command_id=request.id)
        destination = (REQUESTS, key, self._reply_queue.name)
        confirm = self._sender.gather(destination, key, to_json(request), request.deadline_ms)
        arriving = self._pending.expect(request, span)
        if confirm.done.done():
            self._pending.fail([request.id], str(confirm.done.exception()))
        else:
            confirm.command_ids.append(request.id)
        return arriving

    async def request_transient(self, queue: str, request: ServiceRequest, reply: type[R]) -> R:
        """Send a request to the private queue of another process, unconfirmed, and return the reply.

        The request must name `reply_queue`. Raises the other's Refusal, or Unavailable when no answer arrives in time.
        """
        arriving = self._pending.expect(request, None)
        self.send("", queue, to_json(request))
        return read_reply(await arriving, reply)

    async def _keep_deadlines(self) -> None:
        while True:
            await until_next(DEADLINE_SWEEP_S if self._pending else IDLE_SWEEP_S)
            self._pending.end_late(now_ms())
            self._sender.fail_stalled()

    # Receive ---------------------------------------------------------------------------------------------------------

    async def consume(
        self,
        queue: str,
        handle: Handler,
        *,
        prefetch: int = 200,
        max_lines: int = 500,
        concurrency: int = 1,
        split: Callable[[bytes], list[bytes]] = split_lines,
    ) -> Consumer:
        """Hand the lines of a durable queue to `handle`, also after reconnects; with `concurrency` 1 in their order."""
        consumer = Consumer(
            queue,
            handle,
            self.dead_letter,
            prefetch=prefetch,
            max_lines=max_lines,
            concurrency=concurrency,
            split=split,
        )
        self._consumers.append(consumer)
        consumer.run(self._tasks)
        if self._link is not None and self.is_connected:
            try:
                with translate_channel_closed():
                    await self._link.consume(consumer)
            except CONNECTION_LOST_ERRORS:
                if self._link is not None:
                    self._link.closed.set()  # replace a connection that cannot consume
        return consumer

    async def stop(self, consumer: Consumer) -> None:
        """Stop a consumer: finish the batches in hand and return the rest to the queue."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        if self._link is not None:
            self._link.release_queue(consumer.queue)
        with suppress(*CONNECTION_LOST_ERRORS):
            await consumer.stop()

    def private_queue(
        self, prefix: str, on_body: Callable[[bytes], None], arguments: Arguments | None = None
    ) -> PrivateQueue:
        """Return a queue of this process, declared at each connection; `on_body` takes its bodies, unacknowledged."""
        queue = PrivateQueue(prefix, self.name, PRIVATE_QUEUE if arguments is None else arguments, on_body)
        self._private_queues.append(queue)
        return queue

    async def bind(self, queue: PrivateQueue, exchange: str, key: str) -> None:
        """Bind a private queue, at later connections too. Raises Unavailable; the next connection then binds it."""
        queue.bindings.add((exchange, key))
        async with self._reaching("bind") as link:
            await link.bind(queue.name, exchange, key)

    async def unbind(self, queue: PrivateQueue, exchange: str, key: str) -> None:
        """Undo `bind`. Raises Unavailable."""
        queue.bindings.discard((exchange, key))
        if self.is_connected:
            async with self._reaching("unbind") as link:
                await link.unbind(queue.name, exchange, key)


def _field_of(reason: str) -> str | None:
    """Return the field that a reason names. The rest may quote the body, which must not be logged."""
    field = reason.partition(":")[0]
    return field if _FIELD.fullmatch(field) else None
