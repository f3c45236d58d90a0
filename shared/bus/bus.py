"""The bus: one broker connection per process. It batches outgoing lines into bodies and splits incoming ones.

- `publish` gathers lines by destination and resolves when the broker has confirmed their body.
- `ask` sends a request; its future is the reply, until the request's deadline. `request` awaits and reads it.
- `consume` hands batches of lines to a handler, in order, and settles them (see `shared.bus.consumer`).
- `private_queue` declares a queue of this process and hands its bodies to a plain function, unacknowledged.
- `send`, `send_deliveries` publish without a confirm: the hot path.

The bus stays connected (see `shared.bus.kept_connection`). Publishing fails at once with Unavailable while the bus is
disconnected or the broker confirms nothing. A caller that must not lose a line does not acknowledge the message that
caused it; the redelivery repeats the publish.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from shared.bus.batching import split_lines
from shared.bus.consumer import Consumer, Handler
from shared.bus.delivery import Delivery
from shared.bus.delivery_bodies import delivery_bodies
from shared.bus.kept_connection import KeptConnection
from shared.bus.line_sender import DEFAULT_EXCHANGE, LineSender
from shared.bus.pending_requests import PendingRequests, read_reply
from shared.bus.private_queue import PrivateQueue
from shared.bus.queue_admin import QueueAdmin
from shared.bus.topology import (
    DEAD,
    DELIVERIES,
    PRIVATE_QUEUE,
    REQUESTS,
    Arguments,
    queue_label,
    shard_key,
    shard_of,
)
from shared.commands.command import Reply, ServiceRequest, command_ids_of, request_id_of
from shared.encoding import to_json
from shared.errors import Unavailable
from shared.telemetry import logs, metrics, tracing
from shared.times import now_ms
from shared.waiting import until_next

log = logs.get(__name__)

R = TypeVar("R")
DEADLINE_SWEEP_S = 0.25
IDLE_SWEEP_S = 0.5  # while no request is unanswered; deadlines are seconds away
MEASURE_INTERVAL_S = 5.0
_FIELD = re.compile(r"[\w.\[\]]{1,64}", re.ASCII)


class Bus:
    """One process's connection to RabbitMQ. Use it as an async context manager.

    `name` appears in the broker's list of connections and in the names of private queues. It must be unique: a node id.
    Pass `declares_queues=False` where the process consumes no durable queue and its account may declare none.
    """

    def __init__(self, url: str, name: str, *, request_timeout_s: float = 5.0, declares_queues: bool = True) -> None:
        self.name = name
        self.request_timeout_s = request_timeout_s
        self._tasks = asyncio.TaskGroup()
        self._background: set[asyncio.Task[None]] = set()
        self._connection = KeptConnection(url, name, declares_queues=declares_queues)
        self.queues = QueueAdmin(self._connection)
        self._pending = PendingRequests()
        self.on_disconnected.append(lambda: self._pending.fail_all("the connection to the broker was lost"))
        self._sender = LineSender(self._connection, self._tasks, self._pending.fail)
        self._reply_queue = self.private_queue("reply", self._pending.take)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        connection = self._connection
        for work in (connection.run(), connection.watch_echo(), self._keep_deadlines(), self._measure()):
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
        for consumer in list(self._connection.consumers):
            await self.stop(consumer)
        self._connection.is_leaving = True
        for task in list(self._background):
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    # Connection -----------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Return whether the broker can be reached now."""
        return self._connection.is_connected

    @property
    def on_connected(self) -> list[Callable[[], Awaitable[None]]]:
        """Return the hooks that run at each connection, when everything is restored."""
        return self._connection.on_connected

    @property
    def on_disconnected(self) -> list[Callable[[], object]]:
        """Return the hooks that run when the connection is lost, before the next one."""
        return self._connection.on_disconnected

    async def readiness(self) -> str | None:
        """Return None when connected with every queue consumed, else the reason."""
        if not self.is_connected:
            return "broker: not connected"
        missing = [consumer.queue for consumer in self._connection.consumers if not consumer.is_attached]
        return f"broker: not consumed yet: {', '.join(sorted(missing))}" if missing else None

    async def wait_connected(self) -> None:
        """Wait for a connection."""
        await self._connection.wait_connected()

    def drop_connection(self, reason: str) -> None:
        """Replace the connection, because this process can no longer rely on it. Does nothing while disconnected."""
        self._connection.drop(reason)

    async def _measure(self) -> None:
        """Update the gauges of waiting lines, here and at the broker, until the bus closes."""
        while not self._connection.is_leaving:  # aio-pika may swallow a cancellation
            await until_next(MEASURE_INTERVAL_S)
            if self._connection.declares_queues:
                with suppress(Unavailable):
                    await self.queues.restore_dead_letters()
            metrics.BUS_GATHERED_BYTES.set(self._sender.waiting_bytes)
            for consumer in list(self._connection.consumers):
                consumer.measure(now_ms())
                with suppress(Unavailable):
                    consumer.measure_depth(await self.queues.depth(consumer.queue))

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
        return 0 if self._connection.link is None else self._connection.link.unsent_bytes

    def send(self, exchange: str, key: str, body: bytes, cc: Sequence[str] = ()) -> None:
        """Publish a body once, transiently, or drop it while disconnected. Only for what may be lost. HOT."""
        if (link := self._connection.link) is not None:
            link.send(exchange, key, body, cc)
            metrics.BUS_BODIES_SENT.labels(exchange or DEFAULT_EXCHANGE).inc()

    def send_deliveries(self, deliveries: Sequence[Delivery], queues: Sequence[str] = ()) -> None:
        """Publish deliveries and answers in order, unconfirmed, in one body for all gateways concerned. HOT.

        `queues` are the private queues of the gateways to be answered; each is bound to the exchange by its own name.
        """
        for lines, (key, *more_keys) in delivery_bodies(deliveries, queues):
            self.send(DELIVERIES, key, b"\n".join(lines), more_keys)
            metrics.BUS_LINES_SENT.labels(DELIVERIES).inc(len(lines))

    async def dead_letter(self, body: bytes, *, queue: str, reason: str) -> None:
        """Store an unprocessable body in `realtime.dead`, with the reason and its queue as headers.

        Raises Unavailable, also while there is no such queue.
        """
        headers = {"reason": reason[:1000], "queue": queue, "at": now_ms()}
        await self._sender.publish_confirmed("", DEAD, body, headers=headers, is_persistent=True, is_mandatory=True)
        metrics.BUS_DEAD_LETTERS.labels(queue_label(queue)).inc()
        ids = command_ids_of([body])
        log.warning("dead_letter", queue=queue, field=_field_of(reason), size_bytes=len(body), command_ids=ids)

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
        consumer.run(self._tasks)
        await self._connection.add_consumer(consumer)
        return consumer

    async def stop(self, consumer: Consumer) -> None:
        """Stop a consumer: finish the batches in hand and return the rest to the queue."""
        await self._connection.stop_consumer(consumer)

    def private_queue(
        self, prefix: str, on_body: Callable[[bytes], None], arguments: Arguments | None = None
    ) -> PrivateQueue:
        """Return a queue of this process, declared at each connection; `on_body` takes its bodies, unacknowledged."""
        queue = PrivateQueue(prefix, self.name, PRIVATE_QUEUE if arguments is None else arguments, on_body)
        self._connection.add_private_queue(queue)
        return queue

    async def bind(self, queue: PrivateQueue, exchange: str, key: str) -> None:
        """Bind a private queue, at later connections too. Raises Unavailable; the next connection then binds it."""
        queue.bindings.add((exchange, key))
        async with self._connection.reaching("bind") as link:
            await link.bind(queue.name, exchange, key)

    async def unbind(self, queue: PrivateQueue, exchange: str, key: str) -> None:
        """Undo `bind`. Raises Unavailable."""
        queue.bindings.discard((exchange, key))
        if self.is_connected:
            async with self._connection.reaching("unbind") as link:
                await link.unbind(queue.name, exchange, key)


def _field_of(reason: str) -> str | None:
    """Return the field that a reason names. The rest may quote the body, which must not be logged."""
    field = reason.partition(":")[0]
    return field if _FIELD.fullmatch(field) else None
