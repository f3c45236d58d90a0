"""One connection to RabbitMQ, as the bus uses it. The only module that knows aio-pika."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Self, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue

from shared.bus.consumer import Consumer, Inbound, Line
from shared.bus.topology import DEAD, QueueSpec

CALL_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
HEARTBEAT_S = 5  # a frozen consumer loses its partitions after about twice that
_TRANSIENT, _PERSISTENT = 1, 2

# The exceptions of aio-pika on a dying connection, whichever call they interrupt.
LOST = (
    aiormq.exceptions.AMQPError,
    ConnectionError,
    OSError,
    TimeoutError,
    aiormq.exceptions.ChannelInvalidStateError,
)


@contextmanager
def closed_is_lost() -> Iterator[None]:
    """Raise ConnectionError for the bare Exception that aiormq gives to whoever waits while a channel closes."""
    try:
        yield
    except Exception as error:
        if type(error) is Exception:
            raise ConnectionError("the channel was closed") from error
        raise


class Connection(aio_pika.Connection):
    """An aio-pika connection that only its owner closes, and that closes itself when connecting fails.

    aio-pika's own class also closes itself in `__del__`, wherever garbage is collected, and warns when no loop runs
    there.
    """

    def __del__(self) -> None:
        pass

    async def connect(self, timeout: float | None = None) -> None:
        """Connect, or close and raise."""
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


class DeadLetter(NamedTuple):
    """A message in `realtime.dead`: the reason, its queue, and when it was put there (0 for unknown)."""

    body: bytes
    reason: str
    queue: str
    at_ms: int


class BrokerConnection:
    """A connection and the channel on which it publishes, declares and listens.

    `closed` is set when the connection or one of its lasting channels is gone. From then on every method but `close`
    raises one of LOST.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self.closed = asyncio.Event()
        self._connection = connection
        self._channel: AbstractChannel
        self._consumed: set[str] = set()
        connection.close_callbacks.add(self._on_close)

    @classmethod
    async def open(cls, url: str, name: str) -> Self:
        """Connect; the broker lists the connection as `name`."""
        link = cls(
            await aio_pika.connect(
                url,
                timeout=CALL_TIMEOUT_S,
                heartbeat=HEARTBEAT_S,
                client_properties={"connection_name": name},
                connection_class=Connection,
            )
        )
        try:
            link._channel = await link._open_channel()
        except BaseException:
            await link.close()
            raise
        return link

    async def close(self) -> None:
        """Close, or give up after a second."""
        with suppress(*LOST):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()

    def _on_close(self, *_: object) -> None:
        self.closed.set()

    async def _open_channel(self, prefetch: int = 0) -> AbstractChannel:
        """Open a channel whose end is the end of the connection."""
        channel = await self._open_passing_channel()
        channel.close_callbacks.add(self._on_close)
        if prefetch:
            await channel.set_qos(prefetch_count=prefetch)
        return channel

    async def _open_passing_channel(self) -> AbstractChannel:
        """Open a channel whose end concerns nobody else.

        aio-pika raises a bare RuntimeError for a connection that has just closed.
        """
        try:
            channel = self._connection.channel()
            await channel.initialize(timeout=CALL_TIMEOUT_S)
        except RuntimeError as error:
            raise ConnectionError(str(error)) from error
        return channel

    # Topology -------------------------------------------------------------------------------------------------------

    async def declare_exchange(self, name: str, kind: str) -> None:
        """Declare a durable exchange."""
        await self._channel.declare_exchange(name, kind, durable=True)

    async def declare(self, spec: QueueSpec) -> None:
        """Declare a durable queue and its bindings."""
        queue = await self._channel.declare_queue(spec.name, durable=True, arguments=dict(spec.arguments))
        for exchange, key in spec.bindings:
            await queue.bind(exchange, key)

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """Route what is published with `key` to `queue`."""
        underlay = await self._channel.get_underlay_channel()
        await underlay.queue_bind(queue, exchange, key, timeout=CALL_TIMEOUT_S)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo `bind`."""
        underlay = await self._channel.get_underlay_channel()
        await underlay.queue_unbind(queue, exchange, key, timeout=CALL_TIMEOUT_S)

    async def depth(self, queue: str) -> int:
        """Return the number of messages that wait in a queue."""
        channel = await self._open_passing_channel()  # its own channel, because asking for a missing queue closes it
        try:
            declared = await channel.declare_queue(queue, passive=True, timeout=CALL_TIMEOUT_S)
            return declared.declaration_result.message_count or 0
        finally:
            if not self._connection.is_closed:
                await channel.close()

    # Send -----------------------------------------------------------------------------------------------------------

    async def publish(
        self,
        exchange: str,
        key: str,
        body: bytes,
        *,
        message_id: str | None = None,
        reply_to: str | None = None,
        expires_in_ms: int | None = None,
        headers: dict[str, Any] | None = None,
        is_lasting: bool = False,
    ) -> None:
        """Publish, and return once the broker has confirmed.

        Pass a `message_id`: aiormq spends time on making one.
        """
        properties = aiormq.spec.Basic.Properties(
            content_type="application/json" if is_lasting else None,
            message_id=message_id,
            reply_to=reply_to,
            expiration=None if expires_in_ms is None else str(expires_in_ms),
            headers=headers,
            delivery_mode=_PERSISTENT if is_lasting else _TRANSIENT,
        )
        underlay = await self._channel.get_underlay_channel()
        with closed_is_lost():
            await cast(aiormq.Channel, underlay).basic_publish(
                body,
                exchange=exchange,
                routing_key=key,
                properties=properties,
                timeout=CALL_TIMEOUT_S,
                wait=False,  # aiormq then waits for the confirm only
            )

    # Receive----------------------------------------------------------------------------------------------------------

    async def listen(self, queue: QueueSpec, on_body: Callable[[bytes], None]) -> None:
        """Declare a queue and pass each of its bodies to `on_body`, without acknowledgements."""
        await self.declare(queue)
        underlay = await self._channel.get_underlay_channel()

        async def on_message(message: aiormq.abc.DeliveredMessage) -> None:
            on_body(message.body)

        await underlay.basic_consume(queue.name, on_message, no_ack=True, timeout=CALL_TIMEOUT_S)

    async def consume(self, consumer: Consumer) -> None:
        """Feed a consumer from its queue on a channel of its own. A second call for its queue does nothing."""
        if consumer.queue in self._consumed or consumer.is_stopping:
            return
        self._consumed.add(consumer.queue)
        channel = await self._open_channel(consumer.prefetch)
        queue = await channel.get_queue(consumer.queue, ensure=False)

        async def on_message(message: AbstractIncomingMessage) -> None:
            consumer.accept(_inbound(message, consumer.split))

        tag = await queue.consume(on_message, timeout=CALL_TIMEOUT_S)
        started = _ConsumerChannel(channel, queue, tag)
        consumer.connected(started)
        if consumer.is_stopping:  # stopped in the meantime: an open channel would keep the queue from the next consumer
            await started.close()

    def consumed_no_more(self, queue: str) -> None:
        """Let another consumer take the queue: the last one has stopped."""
        self._consumed.discard(queue)

    async def letters(self, settle: Callable[[DeadLetter], Awaitable[bool]]) -> int:
        """Show the dead letters; see `Bus.letters`."""
        channel = await self._open_passing_channel()
        try:
            queue = await channel.declare_queue(DEAD, passive=True)
            count = queue.declaration_result.message_count or 0
            for _ in range(count):
                message = await queue.get(timeout=CALL_TIMEOUT_S, fail=False)
                if message is None:
                    break
                if await settle(_letter(message)):
                    await message.ack()
            return count
        finally:
            await channel.close()  # which returns the unsettled ones to the queue


class _ConsumerChannel:
    """The channel of one consumer."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue, tag: str) -> None:
        self._channel = channel
        self._queue = queue
        self._tag = tag

    async def cancel(self) -> None:
        await self._queue.cancel(self._tag, timeout=CALL_TIMEOUT_S)

    async def close(self) -> None:
        self._channel.close_callbacks.clear()  # this channel closes on purpose, so the connection stays
        await self._channel.close()


def _letter(message: AbstractIncomingMessage) -> DeadLetter:
    """Read a dead letter of ours, or one that the broker itself moved there after too many deliveries."""
    headers: dict[str, Any] = dict(message.headers)
    deaths = headers.get("x-death")
    death: Any = deaths[0] if isinstance(deaths, list) and deaths else {}
    at = headers.get("at")
    reason = str(headers.get("reason") or death.get("reason") or "")
    queue = str(headers.get("queue") or death.get("queue") or "")
    return DeadLetter(message.body, reason, queue, at if isinstance(at, int) else 0)


def _inbound(message: AbstractIncomingMessage, split: Callable[[bytes], list[bytes]]) -> Inbound:
    redelivered = bool(message.redelivered)
    key = message.routing_key or ""
    lines = [Line(body, message.reply_to, key, redelivered) for body in split(message.body)]

    async def acknowledge(multiple: bool) -> None:
        with suppress(*LOST):  # the broker then delivers the message again
            await message.ack(multiple=multiple)

    return Inbound(lines, acknowledge)
