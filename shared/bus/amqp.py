"""One connection to RabbitMQ while it lasts: what the bus needs of it. The only module that knows aio-pika."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, Self, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue

from shared.bus.consumer import Consumer, Inbound, Line
from shared.bus.topology import DEAD, QueueSpec

CALL_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
HEARTBEAT_S = 5  # a frozen consumer is noticed, and its partitions move, after about twice that
_TRANSIENT, _PERSISTENT = 1, 2

# What a dying connection makes aio-pika raise, whichever call it interrupts.
LOST = (
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


class DeadLetter(NamedTuple):
    """A message that lies in `realtime.dead`: why, in which queue it was, and when it was put there (0: not told)."""

    body: bytes
    reason: str
    queue: str
    at_ms: int


class BrokerConnection:
    """A connection, and the channel on which it publishes, declares and listens. `closed` is set when it, or any
    channel of it that we need, is gone. Every method but `close` raises one of LOST then."""

    def __init__(self, connection: AbstractConnection) -> None:
        self.closed = asyncio.Event()
        self._connection = connection
        self._channel: AbstractChannel
        self._consumed: set[str] = set()
        connection.close_callbacks.add(self._on_close)

    @classmethod
    async def open(cls, url: str, name: str) -> Self:
        """Connect; the broker's list of connections shows `name`."""
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
        """Close, or give up trying after a second."""
        with suppress(*LOST):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()

    def _on_close(self, *_: object) -> None:
        self.closed.set()

    async def _open_channel(self, prefetch: int = 0) -> AbstractChannel:
        """A channel whose end is that of the link."""
        channel = await self._open_passing_channel()
        channel.close_callbacks.add(self._on_close)
        if prefetch:
            await channel.set_qos(prefetch_count=prefetch)
        return channel

    async def _open_passing_channel(self) -> AbstractChannel:
        """aio-pika has a bare RuntimeError for a connection that has just closed."""
        try:
            channel = self._connection.channel()
            await channel.initialize(timeout=CALL_TIMEOUT_S)
        except RuntimeError as error:
            raise ConnectionError(str(error)) from error
        return channel

    # Declaring ------------------------------------------------------------------------------------------------------

    async def declare_exchange(self, name: str, kind: str) -> None:
        """A durable exchange."""
        await self._channel.declare_exchange(name, kind, durable=True)

    async def declare(self, spec: QueueSpec) -> None:
        """A durable queue and its bindings."""
        queue = await self._channel.declare_queue(spec.name, durable=True, arguments=dict(spec.arguments))
        for exchange, key in spec.bindings:
            await queue.bind(exchange, key)

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """Have `queue` get what is published with `key`."""
        underlay = await self._channel.get_underlay_channel()
        await underlay.queue_bind(queue, exchange, key, timeout=CALL_TIMEOUT_S)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo `bind`."""
        underlay = await self._channel.get_underlay_channel()
        await underlay.queue_unbind(queue, exchange, key, timeout=CALL_TIMEOUT_S)

    async def depth(self, queue: str) -> int:
        """How many messages wait in it."""
        channel = await self._open_passing_channel()  # of its own: a queue that is gone closes it
        try:
            declared = await channel.declare_queue(queue, passive=True, timeout=CALL_TIMEOUT_S)
            return declared.declaration_result.message_count or 0
        finally:
            if not self._connection.is_closed:
                await channel.close()

    # Out ------------------------------------------------------------------------------------------------------------

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
        """Return once the broker has confirmed it. Where `message_id` is None, aiormq takes the time to make one."""
        properties = aiormq.spec.Basic.Properties(
            content_type="application/json" if is_lasting else None,
            message_id=message_id,
            reply_to=reply_to,
            expiration=None if expires_in_ms is None else str(expires_in_ms),
            headers=headers,
            delivery_mode=_PERSISTENT if is_lasting else _TRANSIENT,
        )
        underlay = await self._channel.get_underlay_channel()
        await cast(aiormq.Channel, underlay).basic_publish(
            body,
            exchange=exchange,
            routing_key=key,
            properties=properties,
            timeout=CALL_TIMEOUT_S,
            wait=False,  # for the confirm alone
        )

    # In -------------------------------------------------------------------------------------------------------------

    async def listen(self, queue: QueueSpec, on_body: Callable[[bytes], None]) -> None:
        """Declare a queue, and hand each of its bodies to `on_body`, unacknowledged."""
        await self.declare(queue)
        underlay = await self._channel.get_underlay_channel()

        async def on_message(message: aiormq.abc.DeliveredMessage) -> None:
            on_body(message.body)

        await underlay.basic_consume(queue.name, on_message, no_ack=True, timeout=CALL_TIMEOUT_S)

    async def consume(self, consumer: Consumer) -> None:
        """Feed a consumer, on a channel of its own; once only."""
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
        if consumer.is_stopping:  # it was stopped meanwhile, and would keep the queue from its next consumer
            await started.close()

    def consumed_no_more(self, queue: str) -> None:
        """Its consumer has stopped: another one may come."""
        self._consumed.discard(queue)

    async def letters(self, settle: Callable[[DeadLetter], Awaitable[bool]]) -> int:
        """See `Bus.letters`."""
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
            await channel.close()  # which puts the rest back where it was


class _ConsumerChannel:
    """A consumer's own channel."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue, tag: str) -> None:
        self._channel = channel
        self._queue = queue
        self._tag = tag

    async def cancel(self) -> None:
        await self._queue.cancel(self._tag, timeout=CALL_TIMEOUT_S)

    async def close(self) -> None:
        self._channel.close_callbacks.clear()  # closed on purpose: the connection stays
        await self._channel.close()


def _letter(message: AbstractIncomingMessage) -> DeadLetter:
    """One of ours; or one that the broker put there by itself, after too many deliveries."""
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
        with suppress(*LOST):  # then the broker delivers it again
            await message.ack(multiple=multiple)

    return Inbound(lines, acknowledge)
