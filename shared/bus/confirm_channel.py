"""The channel for confirmed publishes, replaced when the broker refuses one.

A channel looks up the leader of a quorum queue at its first publish to it, and keeps that server for life. If the
leader's node is dying at that moment, RabbitMQ 3.10 refuses (basic.nack) everything the channel publishes to the queue
until the node is back, although the other nodes have elected a new leader within milliseconds. A new channel finds that
one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from aiormq.exceptions import DeliveryError, PublishError

REPLACE_INTERVAL_S = 0.25  # a queue without a majority refuses on every channel


class Outgoing(NamedTuple):
    """One AMQP message. A mandatory one comes back if no queue takes it."""

    exchange: str
    key: str
    body: bytes
    properties: Any  # as aiormq has them
    is_mandatory: bool = False


class PublishChannel(Protocol):
    """An open channel with publisher confirms."""

    async def publish(self, message: Outgoing) -> None:
        """Publish, and return once the broker has confirmed.

        Raises DeliveryError when it refuses, and its subclass PublishError when a mandatory message comes back.
        """

    async def close(self) -> None:
        """Close only the channel; its connection stays open."""


class ConfirmChannel:
    """Publishes with confirms on one channel at a time."""

    def __init__(
        self,
        first: PublishChannel,
        open_channel: Callable[[], Awaitable[PublishChannel]],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = first
        self._open_channel = open_channel
        self._clock_s = clock_s
        self._replaceable_at_s = clock_s()
        self._replacing = asyncio.Lock()
        self._publishing: dict[PublishChannel, int] = {}  # number of publishes in progress

    async def publish(self, message: Outgoing) -> None:
        """Publish, and once more on a new channel if the broker refuses it.

        Raises DeliveryError if the broker refuses it again, PublishError when a mandatory message comes back.
        """
        channel = self._channel
        try:
            await self._publish_on(channel, message)
        except PublishError:
            raise
        except DeliveryError:
            if not await self._replace(channel):
                raise
            await self._publish_on(self._channel, message)

    async def _replace(self, refused: PublishChannel) -> bool:
        """Replace a channel that the broker refused, once for all its waiting publishes.

        Return whether a new channel is in use.
        """
        async with self._replacing:
            if self._channel is refused and self._clock_s() >= self._replaceable_at_s:
                self._replaceable_at_s = self._clock_s() + REPLACE_INTERVAL_S
                self._channel = await self._open_channel()
                await self._close_idle(refused)
        return self._channel is not refused

    async def _publish_on(self, channel: PublishChannel, message: Outgoing) -> None:
        self._publishing[channel] = self._publishing.get(channel, 0) + 1
        try:
            await channel.publish(message)
        finally:
            self._publishing[channel] -= 1
            if channel is not self._channel:
                await self._close_idle(channel)

    async def _close_idle(self, replaced: PublishChannel) -> None:
        """Close a replaced channel once no publish waits for a confirm on it."""
        if self._publishing.get(replaced) == 0:
            del self._publishing[replaced]
            await replaced.close()
