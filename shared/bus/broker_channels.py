"""Three kinds of channel: raw without confirms, with publisher confirms, and for one consumer."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import aiormq
from aio_pika.abc import AbstractChannel, AbstractQueue

from shared.bus.amqp import CALL_TIMEOUT_S, CONNECTION_LOST_ERRORS, translate_channel_closed
from shared.bus.confirm_channel import Outgoing
from shared.bus.delivery_tap import DeliveryTap
from shared.bus.publish_frame import publish_frames


class RawChannel:
    """Writes publishes of one channel straight to the transport, and taps its consumers. HOT.

    The library handles everything else of a channel: opening, closing and errors.
    """

    def __init__(self, channel: Any, tap: DeliveryTap) -> None:
        self._number: int = channel.number
        self._frame_max: int = channel.connection.connection_tune.frame_max
        self._tap = tap

    def publish(self, exchange: str, key: str, body: bytes, cc: Sequence[str]) -> None:
        """Write a publish; drop it once the transport is closing."""
        if not self._tap.transport.is_closing():
            self._tap.transport.write(publish_frames(self._number, self._frame_max, exchange, key, body, cc))

    def tap(self, consumer_tag: str, on_body: Callable[[bytes], None]) -> None:
        """Pass the bodies of a consumer of this channel to `on_body`."""
        self._tap.splitter.tap(self._number, consumer_tag, on_body)

    @property
    def unsent_bytes(self) -> int:
        """Return the number of bytes that the transport has not yet written."""
        return self._tap.transport.get_write_buffer_size()


async def _close_alone(channel: AbstractChannel) -> None:
    """Close a channel on purpose: its connection stays."""
    channel.close_callbacks.clear()
    async with asyncio.timeout(CALL_TIMEOUT_S):
        with translate_channel_closed():
            await channel.close()


class ConfirmedPublisher:
    """A channel with publisher confirms."""

    def __init__(self, channel: AbstractChannel, underlay: aiormq.Channel) -> None:
        self._channel = channel
        self._underlay = underlay

    async def publish(self, message: Outgoing) -> None:
        """Publish, and return once the broker has confirmed."""
        await self._underlay.basic_publish(
            message.body,
            exchange=message.exchange,
            routing_key=message.key,
            properties=message.properties,
            mandatory=message.is_mandatory,
            timeout=CALL_TIMEOUT_S,
            wait=False,  # aiormq then waits for the confirm only
        )

    async def close(self) -> None:
        """Close the channel; its connection stays."""
        with suppress(*CONNECTION_LOST_ERRORS):
            await _close_alone(self._channel)


class ConsumerChannel:
    """The channel of one consumer."""

    def __init__(self, channel: AbstractChannel, queue: AbstractQueue, tag: str) -> None:
        self._channel = channel
        self._queue = queue
        self._tag = tag

    async def cancel(self) -> None:
        """Stop the deliveries."""
        with translate_channel_closed():
            await self._queue.cancel(self._tag, timeout=CALL_TIMEOUT_S)

    async def close(self) -> None:
        """Close the channel; its connection stays."""
        await _close_alone(self._channel)
