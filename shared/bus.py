"""The bus: one broker connection a process; lines batched out with confirms, bodies split into lines in.

The only module that knows aio-pika. What stands on it:

- `publish` gathers lines by destination and resolves when the broker has confirmed the body that carries them.
- `ask` sends a command; its reply line comes back until the command's deadline. `request` awaits and reads it.
- `consume` attends to batches of lines, one at a time and in order, and settles them (see `shared.consumer`).
- `listen` hands every body of a process's own queue to a plain function, unacknowledged: the gateway's fast path.

The connection is made again for ever, with backoff; queues, bindings and consumers are restored each time, and then the
`on_connected` hooks run, because what was missed meanwhile only they can know. Publishing while disconnected, or
while the broker confirms nothing, fails at once with Unavailable: who must not lose a line has not acknowledged its
cause, and does it again.
"""

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

import aio_pika
import aiormq
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from prometheus_client import Histogram

from shared import logs, metrics, tracing
from shared.commands import Command, Reply, request_id_of, request_ids_of
from shared.consumer import Consumer, Handler, Inbound, Line
from shared.encoding import to_json
from shared.errors import ErrorCode, RealtimeError, Unavailable
from shared.lines import Lanes, Parcel, split_lines
from shared.times import now_ms
from shared.topology import (
    COMMANDS,
    DEAD,
    DELIVERIES,
    EVENTS,
    Delivery,
    QueueSpec,
    queue_label,
    queues,
    shard_key,
    shard_of,
)
from shared.validation import decode

log = logs.get(__name__)

R = TypeVar("R")
Lane = tuple[str, str | None, str | None]  # exchange; its one routing key, if it has one; reply queue
Splitter = Callable[[bytes], list[bytes]]
_Parcel = Parcel[Lane, "_Confirm"]

_request_seconds: dict[tuple[str, str], Histogram] = {}
_reply_decoder = msgspec.json.Decoder(Reply)

CONFIRM_TIMEOUT_S = 10.0
HEARTBEAT_S = 5  # a frozen consumer is noticed, and its partitions move, after about twice that
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 1.0
STALLED_S = 2.0  # without a confirm: the broker is blocked (memory, disk), frozen, or cut off
GATHERED_MAX_BYTES = 64 * 1024 * 1024
REPLY_QUEUE_EXPIRES_MS = 60_000
DEADLINE_SWEEP_S = 0.1
MEASURE_INTERVAL_S = 5.0
DEFAULT_EXCHANGE = "default"  # what metrics call the exchange without a name
_TRANSIENT, _PERSISTENT = 1, 2

# What a dying connection makes aio-pika raise, whichever call it interrupts.
_LOST = (
    aiormq.exceptions.AMQPError,
    ConnectionError,
    OSError,
    TimeoutError,
    aiormq.exceptions.ChannelInvalidStateError,
)


class Connection(aio_pika.Connection):
    """Closed by whoever has made it, and by itself when it cannot be made. aio_pika's own begins to close itself from
    wherever garbage is collected, and warns when no loop runs there."""

    def __del__(self) -> None:
        pass

    async def connect(self, timeout: float | None = None) -> None:
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


class Letter(NamedTuple):
    """A message that lies in `realtime.dead`: why, in which queue it was, and when it was put there (0: not told)."""

    body: bytes
    reason: str
    queue: str
    at_ms: int


class _Listener(NamedTuple):
    queue: QueueSpec
    on_body: Callable[[bytes], None]


class _Asked(NamedTuple):
    """A command whose reply has not come."""

    arriving: "asyncio.Future[Reply]"
    op: str
    request_id: str
    asked_at_s: float
    span: tracing.Asked | None

    def measure(self, outcome: str) -> None:
        """HOT: the children are kept, which `labels` would take 1 us to find."""
        child = _request_seconds.get((self.op, outcome))
        if child is None:
            child = _request_seconds[self.op, outcome] = metrics.REQUEST_SECONDS.labels(self.op, outcome)
        took_s = time.perf_counter() - self.asked_at_s
        child.observe(took_s)
        if self.span is not None:
            self.span.end(outcome)
        if logs.details:
            log.debug("command_answered", request_id=self.request_id, op=self.op, outcome=outcome, took_s=took_s)


class _Link:
    """One connection while it lasts. `closed` is set when it, or any channel of it that we need, is gone."""

    channel: AbstractChannel  # for publishing, declaring and listening

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.closed = asyncio.Event()
        self.consumed: set[str] = set()
        connection.close_callbacks.add(self._on_close)

    async def open_channel(self, prefetch: int = 0) -> AbstractChannel:
        channel = await _open_channel(self.connection)
        channel.close_callbacks.add(self._on_close)
        if prefetch:
            await channel.set_qos(prefetch_count=prefetch)
        return channel

    def _on_close(self, *_: object) -> None:
        self.closed.set()


class Bus:
    """One process's connection to RabbitMQ. Use as an async context manager.

    `name` is shown in the broker's list of connections and names the reply queue; make it unique (a node id).
    """

    def __init__(self, url: str, name: str, *, request_timeout_s: float = 5.0) -> None:
        self.name = name
        self.request_timeout_s = request_timeout_s
        self.on_connected: list[Callable[[], Awaitable[None]]] = []
        self.on_disconnected: list[Callable[[], object]] = []  # run before anything comes over a next connection
        self._url = url
        self._lanes: Lanes[Lane, _Confirm] = Lanes(GATHERED_MAX_BYTES)
        self._flush_is_due = False
        self._tasks = asyncio.TaskGroup()
        self._keepers: list[asyncio.Task[None]] = []
        self._leaving = False
        self._link: _Link | None = None
        self._connected = asyncio.Event()
        self._unconfirmed: dict[_Confirm, float] = {}  # oldest first: since when
        self._consumers: list[Consumer] = []
        self._listeners: list[_Listener] = []
        self._own_queues: list[QueueSpec] = []
        self._bindings: set[tuple[str, str, str]] = set()
        self._waiting: dict[str, _Asked] = {}
        self._deadlines: list[tuple[int, str]] = []  # a heap of all commands, those answered since among them
        self._sent = 0
        self._reply_queue = QueueSpec(f"reply.{name}", {"x-expires": REPLY_QUEUE_EXPIRES_MS}, ())

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._listeners.append(_Listener(self._reply_queue, self._take_replies))
        self._keepers = [
            self._tasks.create_task(self._keep_connected(), name="bus-keeper"),
            self._tasks.create_task(self._keep_deadlines(), name="bus-deadlines"),
            self._tasks.create_task(self._measure(), name="bus-measurer"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in list(self._consumers):
            await self.stop(consumer)
        self._leaving = True
        for keeper in self._keepers:
            keeper.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    # Connection -----------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached right now."""
        return self._connected.is_set()

    async def readiness(self) -> str | None:
        """None when connected and every queue is consumed, else the reason."""
        if not self.is_connected:
            return "broker: not connected"
        missing = [consumer.queue for consumer in self._consumers if not consumer.is_attached]
        return f"broker: not consumed yet: {', '.join(sorted(missing))}" if missing else None

    async def wait_connected(self) -> None:
        """Return once connected."""
        await self._connected.wait()

    async def _keep_connected(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        first = True
        try:
            while True:
                try:
                    link = await self._connect()
                except _LOST as error:
                    log.warning("broker_unreachable", reason=str(error) or type(error).__name__, retry_in_s=backoff_s)
                    await self._disconnect()
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
                    continue
                log.info("broker_connected")
                metrics.BUS_RECONNECTS.inc(0 if first else 1)
                backoff_s, first = BACKOFF_FIRST_S, False
                await link.closed.wait()
                log.warning("broker_connection_lost")
                await self._disconnect()
        finally:
            await self._disconnect()

    async def _connect(self) -> _Link:
        """Connect and restore everything."""
        connection = await aio_pika.connect(
            self._url,
            timeout=CONFIRM_TIMEOUT_S,
            heartbeat=HEARTBEAT_S,
            client_properties={"connection_name": self.name},
            connection_class=Connection,
        )
        self._link = link = _Link(connection)
        link.channel = await link.open_channel()
        await self._declare_topology(link.channel)
        for spec in self._own_queues:
            await self._declare(link.channel, spec)
        for listener in self._listeners:
            await self._start_listener(link.channel, listener)
        for queue, exchange, key in sorted(self._bindings):
            await _bind(link.channel, queue, exchange, key)
        self._connected.set()  # before the first consumer, whose answers could not leave else
        metrics.BUS_CONNECTED.set(1)
        for consumer in list(self._consumers):
            await _start_consumer(link, consumer)
        for hook in self.on_connected:
            await hook()
        return link

    async def _declare_topology(self, channel: AbstractChannel) -> None:
        for name, kind in ((COMMANDS, "direct"), (DELIVERIES, "direct"), (EVENTS, "topic")):
            await channel.declare_exchange(name, kind, durable=True)
        for spec in queues():
            await self._declare(channel, spec)

    async def _declare(self, channel: AbstractChannel, spec: QueueSpec) -> None:
        queue = await channel.declare_queue(spec.name, durable=True, arguments=dict(spec.arguments))
        for exchange, key in spec.bindings:
            await queue.bind(exchange, key)

    async def _disconnect(self) -> None:
        self._connected.clear()
        metrics.BUS_CONNECTED.set(0)
        link, self._link = self._link, None
        for consumer in self._consumers:
            consumer.connection_lost()
        for forget in self.on_disconnected:
            forget()
        if link is not None:
            with suppress(*_LOST):
                async with asyncio.timeout(1.0):
                    await link.connection.close()

    async def _measure(self) -> None:
        """Bring to the metrics what waits, here and at the broker, as long as the bus lasts."""
        while not self._leaving:  # aio-pika may take a cancellation for the end of one call
            await asyncio.sleep(MEASURE_INTERVAL_S)
            metrics.BUS_GATHERED_BYTES.set(self._lanes.waiting_bytes)
            for consumer in list(self._consumers):
                consumer.measure(now_ms())
                if self._link is not None and self.is_connected:
                    with suppress(*_LOST):
                        consumer.measure_depth(await _depth(self._link.connection, consumer.queue))

    @property
    def is_stalled(self) -> bool:
        """Whether what has waited longest for the broker has waited for 2 s."""
        oldest_s = next(iter(self._unconfirmed.values()), None)
        return oldest_s is not None and time.monotonic() - oldest_s > STALLED_S

    # Out ------------------------------------------------------------------------------------------------------------

    def publish(
        self, exchange: str, key: str, line: bytes, *, reply_to: str | None = None, expires_at_ms: int | None = None
    ) -> "asyncio.Future[None]":
        """Send a line. The future resolves on the broker's confirm, or raises Unavailable; nobody has to await it."""
        return self._gather((exchange, key, reply_to), key, line, expires_at_ms).done

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        """Send a delivery to the gateways that listen to its shard.

        Deliveries to all shards share one lane, and its bodies go to every shard that they have a line for
        (`_send_parcel`): a gateway with many sockets listens to most shards anyway, and passes over what it has no
        channel for. At 3,000 messages a second in 200 rooms that is one AMQP message instead of thirty.
        """
        shard = shard_key(shard_of(delivery.channel))
        return self._gather((DELIVERIES, None, None), shard, delivery.to_line(), None).done

    def reply(self, reply_to: str, line: bytes) -> None:
        """Send a reply line. If it cannot be sent, its caller's deadline tells the caller."""
        self.publish("", reply_to, line)

    async def dead_letter(self, body: bytes, *, queue: str, reason: str) -> None:
        """Keep what cannot be processed in `realtime.dead`, with the reason and its queue in headers.

        Raises Unavailable.
        """
        properties = aiormq.spec.Basic.Properties(
            headers={"reason": reason[:1000], "queue": queue, "at": now_ms()},
            content_type="application/json",
            delivery_mode=_PERSISTENT,
        )
        await self._send("", DEAD, body, properties)
        metrics.BUS_DEAD_LETTERS.labels(queue_label(queue)).inc()
        whose = request_ids_of([body])
        log.warning("dead_letter", queue=queue, reason=reason, size_bytes=len(body), request_ids=whose)

    def _gather(self, lane: Lane, key: str, line: bytes, expires_at_ms: int | None) -> "_Confirm":
        if not self.is_connected:
            return _Confirm.failed("the broker is not connected")
        if self._unconfirmed and self.is_stalled:
            return _Confirm.failed("the broker takes nothing")
        parcel = self._lanes.add(lane, key, line, self._new_confirm, expires_at_ms)
        if parcel is None:
            return _Confirm.failed("too much waits for the broker")
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)
        return parcel.waiter

    def _new_confirm(self) -> "_Confirm":
        confirm = _Confirm()
        self._unconfirmed[confirm] = time.monotonic()
        return confirm

    async def letters(self, settle: Callable[[Letter], Awaitable[bool]]) -> int:
        """Show each dead letter to `settle`, oldest first; one for which it returns True is gone, the others stay.

        Returns how many there were. What comes meanwhile is not looked at. Raises Unavailable.
        """
        if self._link is None or not self.is_connected:
            raise Unavailable("the broker is not connected")
        try:
            channel = await self._link.open_channel()
            channel.close_callbacks.clear()  # its end is not that of the connection
            try:
                queue = await channel.declare_queue(DEAD, passive=True)
                count = queue.declaration_result.message_count or 0
                for _ in range(count):
                    message = await queue.get(timeout=CONFIRM_TIMEOUT_S, fail=False)
                    if message is None:
                        break
                    if await settle(_letter(message)):
                        await message.ack()
                return count
            finally:
                await channel.close()  # which puts the rest back where it was
        except _LOST as error:
            raise Unavailable(f"the broker was lost: {error or type(error).__name__}") from error

    def _flush(self) -> None:
        self._flush_is_due = False
        for parcel in self._lanes.ready():
            self._tasks.create_task(self._send_parcel(parcel))

    async def _send_parcel(self, parcel: _Parcel) -> None:
        exchange, _, reply_to = parcel.lane
        key, *more_keys = parcel.keys
        self._sent += 1
        properties = aiormq.spec.Basic.Properties(
            reply_to=reply_to,
            expiration=None if parcel.expires_at_ms is None else str(max(parcel.expires_at_ms - now_ms(), 1)),
            delivery_mode=_TRANSIENT,
            message_id=str(self._sent),  # aiormq's own are random and cost more
            headers=cast(Any, {"CC": more_keys})
            if more_keys
            else None,  # https://www.rabbitmq.com/docs/sender-selected
        )
        try:
            await self._send(exchange, key, parcel.body(), properties)
        except Unavailable as error:
            parcel.waiter.fail(error)
            self._fail(parcel.waiter.command_ids, str(error))
        else:
            parcel.waiter.resolve()
            metrics.BUS_BODIES_SENT.labels(exchange or DEFAULT_EXCHANGE).inc()
            metrics.BUS_LINES_SENT.labels(exchange or DEFAULT_EXCHANGE).inc(len(parcel.lines))
        finally:
            del self._unconfirmed[parcel.waiter]
            if self._lanes.arrived(parcel):
                self._flush()

    async def _send(self, exchange: str, key: str, body: bytes, properties: aiormq.spec.Basic.Properties) -> None:
        link = self._link
        if link is None or not self.is_connected:
            raise Unavailable("the broker is not connected")
        started_s = time.perf_counter()
        try:
            underlay = await link.channel.get_underlay_channel()
            await cast(aiormq.Channel, underlay).basic_publish(
                body,
                exchange=exchange,
                routing_key=key,
                properties=properties,
                timeout=CONFIRM_TIMEOUT_S,
                wait=False,  # for the confirm alone
            )
        except _LOST as error:
            metrics.BUS_SEND_FAILURES.labels(exchange or DEFAULT_EXCHANGE).inc()
            raise Unavailable(f"the broker did not confirm: {error or type(error).__name__}") from error
        metrics.BUS_CONFIRM_SECONDS.observe(time.perf_counter() - started_s)

    # Request and reply ----------------------------------------------------------------------------------------------

    def deadline_ms(self) -> int:
        """The deadline of a request that starts now."""
        return now_ms() + round(self.request_timeout_s * 1000)

    async def request(
        self, key: str, command: Command, reply: type[R], *, exchange: str = COMMANDS, expires: bool = True
    ) -> R:
        """Send a command to a queue of `realtime.commands`, or of another exchange, and await its reply.

        The broker drops it once it is late, which a queue with a dead letter exchange must not be asked for: there the
        worker does. Raises Refusal with the worker's answer, Unavailable when there is none in time.
        """
        return read_reply(await self.ask(key, command, exchange=exchange, expires=expires), reply)

    def ask(
        self, key: str, command: Command, *, exchange: str = COMMANDS, expires: bool = True
    ) -> "asyncio.Future[Reply]":
        """Send a command; the future is its reply, or Unavailable: it could not be sent, or was not answered by its
        deadline. HOT: what `request` does, without a coroutine and a timer a command."""
        arriving: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        op = str(command.__struct_config__.tag)
        expires_at_ms = command.deadline_ms if expires else None
        if (span := tracing.ask(op)) is not None:
            command = msgspec.structs.replace(command, trace=span.trace)
        if logs.details:
            log.debug("command_asked", request_id=request_id_of(command), op=op, key=key, command_id=command.id)
        confirm = self._gather((exchange, key, self._reply_queue.name), key, to_json(command), expires_at_ms)
        self._waiting[command.id] = _Asked(arriving, op, request_id_of(command), time.perf_counter(), span)
        if confirm.done.done():
            self._fail([command.id], str(confirm.done.exception()))
        else:
            confirm.command_ids.append(command.id)
            heapq.heappush(self._deadlines, (command.deadline_ms, command.id))
        return arriving

    async def _keep_deadlines(self) -> None:
        while True:
            await asyncio.sleep(DEADLINE_SWEEP_S)
            late: list[str] = []
            while self._deadlines and self._deadlines[0][0] <= now_ms():
                late.append(heapq.heappop(self._deadlines)[1])
            self._fail(late, "no answer in time")
            for confirm, since_s in self._unconfirmed.items():
                if time.monotonic() - since_s <= STALLED_S:
                    break
                self._fail(confirm.command_ids, "the broker takes nothing")

    def _fail(self, command_ids: Iterable[str], reason: str) -> None:
        failed: list[str] = []
        for command_id in command_ids:
            asked = self._waiting.pop(command_id, None)
            if asked is not None:
                failed.append(asked.request_id)
                asked.measure(ErrorCode.UNAVAILABLE)
                if not asked.arriving.done():
                    asked.arriving.set_exception(Unavailable(reason))
        if failed:
            log.warning("commands_unanswered", reason=reason, commands=len(failed), request_ids=failed[:10])

    def _take_replies(self, body: bytes) -> None:
        for line in split_lines(body):
            try:
                answer = decode(line, _reply_decoder)
            except RealtimeError as error:
                log.error("bad_reply_line", reason=str(error))
                continue
            asked = self._waiting.pop(answer.id, None)
            if asked is not None:
                asked.measure("ok" if answer.error is None else answer.error.code)
                if not asked.arriving.done():
                    asked.arriving.set_result(answer)

    # In -------------------------------------------------------------------------------------------------------------

    async def consume(
        self,
        queue: str | QueueSpec,
        handle: Handler,
        *,
        prefetch: int = 200,
        max_lines: int = 500,
        concurrency: int = 1,
        split: Splitter = split_lines,
    ) -> Consumer:
        """Attend to a queue from now on, over every connection. With `concurrency` 1 the queue's order is kept.

        A `QueueSpec` is a queue of this process's own, and is declared at every connection.
        """
        if isinstance(queue, QueueSpec):
            self._own_queues.append(queue)
            if self._link is not None and self.is_connected:
                with suppress(*_LOST):
                    await self._declare(self._link.channel, queue)
        consumer = Consumer(
            queue if isinstance(queue, str) else queue.name,
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
                await _start_consumer(self._link, consumer)
            except _LOST:
                if self._link is not None:
                    self._link.closed.set()  # a connection that will not do this is made anew
        return consumer

    async def stop(self, consumer: Consumer) -> None:
        """Take nothing more, finish what is in hand, give the rest back to the queue."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        if self._link is not None:
            self._link.consumed.discard(consumer.queue)
        with suppress(*_LOST):
            await consumer.stop()

    async def listen(self, queue: QueueSpec, on_body: Callable[[bytes], None]) -> None:
        """Hand each body of a process's own queue to `on_body`, over every connection. Without acknowledgements."""
        listener = _Listener(queue, on_body)
        self._listeners.append(listener)
        if self._link is not None and self.is_connected:
            with suppress(*_LOST):
                await self._start_listener(self._link.channel, listener)

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """Bind a process's own queue, over every connection. Raises Unavailable; the binding then comes later."""
        self._bindings.add((queue, exchange, key))
        if self._link is None or not self.is_connected:
            raise Unavailable("the broker is not connected")
        try:
            await _bind(self._link.channel, queue, exchange, key)
        except _LOST as error:
            raise Unavailable(f"could not bind: {error}") from error

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo `bind`. Raises Unavailable."""
        self._bindings.discard((queue, exchange, key))
        if self._link is None or not self.is_connected:
            return
        try:
            underlay = await self._link.channel.get_underlay_channel()
            await underlay.queue_unbind(queue, exchange, key, timeout=CONFIRM_TIMEOUT_S)
        except _LOST as error:
            raise Unavailable(f"could not unbind: {error}") from error

    async def _start_listener(self, channel: AbstractChannel, listener: _Listener) -> None:
        await self._declare(channel, listener.queue)
        underlay = await channel.get_underlay_channel()

        async def on_message(message: aiormq.abc.DeliveredMessage) -> None:
            listener.on_body(message.body)

        await underlay.basic_consume(listener.queue.name, on_message, no_ack=True, timeout=CONFIRM_TIMEOUT_S)


async def _open_channel(connection: AbstractConnection) -> AbstractChannel:
    """A channel. Raises one of `_LOST`; aio-pika has a bare RuntimeError for a connection that has just closed."""
    try:
        channel = connection.channel()
        await channel.initialize(timeout=CONFIRM_TIMEOUT_S)
    except RuntimeError as error:
        raise ConnectionError(str(error)) from error
    return channel


async def _depth(connection: AbstractConnection, name: str) -> int:
    channel = await _open_channel(connection)  # of its own: a queue that is gone closes it
    try:
        queue = await channel.declare_queue(name, passive=True, timeout=CONFIRM_TIMEOUT_S)
        return queue.declaration_result.message_count or 0
    finally:
        if not connection.is_closed:
            await channel.close()


async def _bind(channel: AbstractChannel, queue: str, exchange: str, key: str) -> None:
    underlay = await channel.get_underlay_channel()
    await underlay.queue_bind(queue, exchange, key, timeout=CONFIRM_TIMEOUT_S)


async def _start_consumer(link: _Link, consumer: Consumer) -> None:
    if consumer.queue in link.consumed or consumer.is_stopping:
        return
    link.consumed.add(consumer.queue)
    channel = await link.open_channel(consumer.prefetch)
    queue = await channel.get_queue(consumer.queue, ensure=False)

    async def on_message(message: AbstractIncomingMessage) -> None:
        consumer.accept(_inbound(message, consumer.split))

    tag = await queue.consume(on_message, timeout=CONFIRM_TIMEOUT_S)
    started = _ConsumerChannel(channel, queue, tag)
    consumer.connected(started)
    if consumer.is_stopping:  # it was stopped meanwhile, and would keep the queue from its next consumer
        await started.close()


class _ConsumerChannel:
    """A consumer's own channel."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue, tag: str) -> None:
        self._channel = channel
        self._queue = queue
        self._tag = tag

    async def cancel(self) -> None:
        await self._queue.cancel(self._tag, timeout=CONFIRM_TIMEOUT_S)

    async def close(self) -> None:
        self._channel.close_callbacks.clear()  # closed on purpose: the connection stays
        await self._channel.close()


def _letter(message: AbstractIncomingMessage) -> Letter:
    """One of ours; or one that the broker put there by itself, after too many deliveries."""
    headers: dict[str, Any] = dict(message.headers)
    deaths = headers.get("x-death")
    death: Any = deaths[0] if isinstance(deaths, list) and deaths else {}
    at = headers.get("at")
    reason = str(headers.get("reason") or death.get("reason") or "")
    queue = str(headers.get("queue") or death.get("queue") or "")
    return Letter(message.body, reason, queue, at if isinstance(at, int) else 0)


def _inbound(message: AbstractIncomingMessage, split: Splitter) -> Inbound:
    redelivered = bool(message.redelivered)
    key = message.routing_key or ""
    lines = [Line(body, message.reply_to, key, redelivered) for body in split(message.body)]

    async def acknowledge(multiple: bool) -> None:
        with suppress(*_LOST):  # then the broker delivers it again
            await message.ack(multiple=multiple)

    return Inbound(lines, acknowledge)


class _Confirm:
    """The broker's confirm of one body: the future that its lines share, and the commands that go with it."""

    __slots__ = ("command_ids", "done")

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.command_ids: list[str] = []

    @classmethod
    def failed(cls, reason: str) -> Self:
        """Of a line that was not taken."""
        confirm = cls()
        confirm.fail(Unavailable(reason))
        return confirm

    def resolve(self) -> None:
        """The broker has it."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Unavailable) -> None:
        """The broker may not have it. Nobody has to look at that."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()


def read_reply(reply: Reply, type_: type[R]) -> R:
    """What a reply carries. Raises Refusal with the worker's answer."""
    if reply.error is not None:
        raise reply.error.to_refusal()
    return msgspec.json.decode(reply.data, type=type_)
