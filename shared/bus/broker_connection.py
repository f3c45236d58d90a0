"""One connection to RabbitMQ and its channels, as the bus uses them."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self, cast

import aiormq
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from shared.bus.amqp import (
    CALL_TIMEOUT_S,
    CLOSE_TIMEOUT_S,
    CONNECTION_LOST_ERRORS,
    PROBE,
    Connection,
    connect,
    translate_channel_closed,
)
from shared.bus.broker_channels import ConfirmedPublisher, ConsumerChannel, RawChannel
from shared.bus.broker_objects import BrokerObjects, open_channel
from shared.bus.confirm_channel import ConfirmChannel, Outgoing
from shared.bus.consumer import Consumer, Inbound, Line
from shared.bus.hosts import BrokerHosts
from shared.bus.topology import QueueSpec

HEARTBEAT_S = 2  # a frozen consumer is replaced after two to three of them
_TRANSIENT, _PERSISTENT = 1, 2


class NoQueueError(ConnectionError):
    """No queue took a mandatory message."""


class BrokerConnection:
    """A connection and the channels on which it publishes, declares and listens.

    `closed` is set when the connection or one of its long-lived channels is gone, or when the connection is to be
    replaced. From then on methods other than `close` may raise one of CONNECTION_LOST_ERRORS, and `send` drops its
    bodies once the transport is closing.
    """

    def __init__(self, connection: Connection) -> None:
        self.closed = asyncio.Event()
        self.objects = BrokerObjects(connection)
        self._connection = connection
        self._channel: AbstractChannel
        self._confirmed: ConfirmChannel
        self._unconfirmed: AbstractChannel
        self._consumed: set[str] = set()
        self._raw: RawChannel
        connection.close_callbacks.add(self._on_close)

    @classmethod
    async def open(cls, hosts: BrokerHosts, name: str) -> Self:
        """Connect to the next of the hosts; the broker lists the connection as `name`."""
        link = cls(await connect(hosts, name, HEARTBEAT_S))
        try:
            link._channel = await link._open_channel(confirms=False)
            link._confirmed = ConfirmChannel(await link._open_publish_channel(), link._open_publish_channel)
            link._raw = await link._open_raw_channel()
        except BaseException:
            await link.close()
            raise
        return link

    async def close(self) -> None:
        """Close; give up after a second."""
        with suppress(*CONNECTION_LOST_ERRORS):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close()

    def _on_close(self, *_: object) -> None:
        self.closed.set()

    async def _open_channel(self, prefetch: int = 0, *, confirms: bool = True) -> AbstractChannel:
        """Open a channel that ends the connection when it ends.

        A consumer that the broker cancels (its queue was deleted, or the node of its queue died) ends it as well.
        """
        channel = await open_channel(self._connection, confirms=confirms)
        channel.close_callbacks.add(self._on_close)
        underlay = cast(aiormq.Channel, await channel.get_underlay_channel())
        underlay.on_consumer_cancel_callbacks.add(self._on_close)
        if prefetch:
            await channel.set_qos(prefetch_count=prefetch)
        return channel

    async def _open_publish_channel(self) -> "ConfirmedPublisher":
        channel = await self._open_channel()
        return ConfirmedPublisher(channel, cast(aiormq.Channel, await channel.get_underlay_channel()))

    async def _open_raw_channel(self) -> RawChannel:
        self._unconfirmed = await self._open_channel(confirms=False)
        return RawChannel(await self._unconfirmed.get_underlay_channel(), self._connection.tap)

    # Topology -------------------------------------------------------------------------------------------------------

    async def declare_exchange(self, name: str, kind: str) -> None:
        """Declare a durable exchange unless it exists, because the account may have no right to declare it."""
        if not await self.objects.has_exchange(name):
            await self._channel.declare_exchange(name, kind, durable=True)

    async def declare(self, spec: QueueSpec) -> None:
        """Declare a durable queue and its bindings."""
        if spec.keeps_existing and await self.objects.counts(spec.name) is not None:
            return
        queue = await self._channel.declare_queue(spec.name, durable=True, arguments=dict(spec.arguments))
        for exchange, key in spec.bindings:
            await queue.bind(exchange, key)

    async def declare_private(self, name: str, arguments: dict[str, str | int | bool]) -> None:
        """Declare a queue that the broker deletes with this connection."""
        await self._channel.declare_queue(name, durable=False, exclusive=True, arguments=dict(arguments))

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """Route messages published with `key` to `queue`."""
        underlay = await self._channel.get_underlay_channel()
        await underlay.queue_bind(queue, exchange, key, timeout=CALL_TIMEOUT_S)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo `bind`."""
        underlay = await self._channel.get_underlay_channel()
        await underlay.queue_unbind(queue, exchange, key, timeout=CALL_TIMEOUT_S)

    @property
    def server_version(self) -> str:
        """Return the version that the broker reported when it connected."""
        transport = self._connection.transport
        properties = {} if transport is None else transport.connection.server_properties
        version = properties.get("version", "")
        return version.decode() if isinstance(version, bytes) else str(version)

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
        is_persistent: bool = False,
        is_mandatory: bool = False,
    ) -> None:
        """Publish, and return once the broker has confirmed. With `is_mandatory`, raise NoQueueError if none takes it.

        Pass a `message_id`: aiormq spends time on making one.
        """
        properties = aiormq.spec.Basic.Properties(
            content_type="application/json" if is_persistent else None,
            message_id=message_id,
            reply_to=reply_to,
            expiration=None if expires_in_ms is None else str(expires_in_ms),
            headers=headers,
            delivery_mode=_PERSISTENT if is_persistent else _TRANSIENT,
        )
        try:
            with translate_channel_closed():
                await self._confirmed.publish(Outgoing(exchange, key, body, properties, is_mandatory))
        except aiormq.exceptions.PublishError as error:
            raise NoQueueError(f"there is no queue for {key!r}") from error

    def send(self, exchange: str, key: str, body: bytes, cc: Sequence[str] = ()) -> None:
        """Publish transiently, without a confirm: it may be lost with the connection, without an error. HOT."""
        self._raw.publish(exchange, key, body, cc)

    @property
    def unsent_bytes(self) -> int:
        """Return the number of bytes that `send` has not yet written to the socket."""
        return self._raw.unsent_bytes

    # Receive --------------------------------------------------------------------------------------------------------

    async def listen(self, queue: str, on_body: Callable[[bytes], None]) -> None:
        """Pass each body of a queue of this connection to `on_body`, without acknowledgements."""

        def on_tapped(body: bytes) -> None:
            if body != PROBE:
                on_body(body)

        async def on_message(message: aiormq.abc.DeliveredMessage) -> None:
            on_tapped(message.body)

        underlay = await self._unconfirmed.get_underlay_channel()
        self._raw.tap(queue, on_tapped)
        await underlay.basic_consume(queue, on_message, no_ack=True, consumer_tag=queue, timeout=CALL_TIMEOUT_S)

    async def consume(self, consumer: Consumer) -> None:
        """Feed a consumer from its queue on a separate channel. A second call for its queue does nothing."""
        if consumer.queue in self._consumed or consumer.is_stopping:
            return
        self._consumed.add(consumer.queue)
        channel = await self._open_channel(consumer.prefetch)
        queue = await channel.get_queue(consumer.queue, ensure=False)

        async def on_message(message: AbstractIncomingMessage) -> None:
            consumer.accept(_inbound(message, consumer.split))

        tag = await queue.consume(on_message, timeout=CALL_TIMEOUT_S)
        started = ConsumerChannel(channel, queue, tag)
        consumer.connected(started)
        if consumer.is_stopping:  # stopped in the meantime: an open channel would keep the queue from the next consumer
            await started.close()

    def release_queue(self, queue: str) -> None:
        """Allow the queue to be consumed again after its consumer has stopped."""
        self._consumed.discard(queue)


def _inbound(message: AbstractIncomingMessage, split: Callable[[bytes], list[bytes]]) -> Inbound:
    redelivered = bool(message.redelivered)
    key = message.routing_key or ""
    lines = [Line(body, message.reply_to, key, redelivered) for body in split(message.body)]

    async def acknowledge(multiple: bool) -> None:
        # If the connection is lost, the broker delivers the message again.
        with suppress(*CONNECTION_LOST_ERRORS), translate_channel_closed():
            await message.ack(multiple=multiple)

    return Inbound(lines, acknowledge)
