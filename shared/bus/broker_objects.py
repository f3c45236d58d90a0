"""Looks at queues and exchanges of the broker, and removes them, each time on a channel of its own.

A refusal or a missing queue closes its channel, and must not close one that others use.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import aiormq
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from shared.bus.amqp import CALL_TIMEOUT_S, CONNECTION_LOST_ERRORS, Connection, is_gone
from shared.bus.topology import DEAD

PROBE_TIMEOUT_S = 0.2


class QueueCounts(NamedTuple):
    """The messages that wait in a queue, and its consumers."""

    messages: int
    consumers: int


class DeadLetter(NamedTuple):
    """A message in `realtime.dead`: the reason, its queue, and when it was put there (0 for unknown)."""

    body: bytes
    reason: str
    queue: str
    at_ms: int


async def open_channel(connection: Connection, *, confirms: bool = True) -> AbstractChannel:
    """Open a channel that may end without ending the connection.

    aio-pika raises a bare RuntimeError for a connection that has just closed.
    """
    try:
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize(timeout=CALL_TIMEOUT_S)
    except RuntimeError as error:
        raise ConnectionError(str(error)) from error
    return channel


class BrokerObjects:
    """The queues and exchanges of the broker, by name. Methods may raise one of CONNECTION_LOST_ERRORS."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def has_exchange(self, exchange: str) -> bool:
        """Return whether an exchange of this name exists."""
        async with self._channel() as channel:
            with suppress(aiormq.exceptions.ChannelNotFoundEntity):
                await channel.declare_exchange(exchange, passive=True, timeout=CALL_TIMEOUT_S)
                return True
        return False

    async def counts(self, queue: str) -> QueueCounts | None:
        """Return the numbers of waiting messages and of consumers; None if there is no such queue."""
        async with self._channel() as channel:
            try:
                declared = await channel.declare_queue(queue, passive=True, timeout=CALL_TIMEOUT_S)
            except aiormq.exceptions.ChannelNotFoundEntity:
                return None
        result = declared.declaration_result
        return QueueCounts(result.message_count or 0, result.consumer_count or 0)

    async def is_gone(self, queue: str) -> bool:
        """Return whether the broker has no such queue; False if it does not answer within 0.2 s."""
        async with self._channel() as channel:
            return await is_gone(channel, queue, PROBE_TIMEOUT_S)

    async def delete_queue(self, queue: str) -> None:
        """Delete a queue with its contents; one that does not exist is not an error."""
        async with self._channel() as channel:
            await channel.queue_delete(queue, timeout=CALL_TIMEOUT_S)

    async def delete_unused_exchange(self, exchange: str) -> bool:
        """Delete an exchange unless queues are bound to it; return whether it is gone.

        Look first: RabbitMQ refuses an account without the right, even if there is no such exchange.
        """
        if not await self.has_exchange(exchange):
            return True
        async with self._channel() as channel:
            with suppress(aiormq.exceptions.ChannelPreconditionFailed):
                await channel.exchange_delete(exchange, if_unused=True, timeout=CALL_TIMEOUT_S)
                return True
        return False

    async def dead_letters(self, settle: Callable[[DeadLetter], Awaitable[bool]]) -> int:
        """Show the dead letters; see `QueueAdmin.dead_letters`. The end of the channel returns the unsettled ones."""
        async with self._channel() as channel:
            queue = await channel.declare_queue(DEAD, passive=True)
            count = queue.declaration_result.message_count or 0
            for _ in range(count):
                message = await queue.get(timeout=CALL_TIMEOUT_S, fail=False)
                if message is None:
                    break
                if await settle(_to_dead_letter(message)):
                    await message.ack()
            return count

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        channel = await open_channel(self._connection)
        try:
            yield channel
        finally:
            with suppress(*CONNECTION_LOST_ERRORS):
                await channel.close()


def _to_dead_letter(message: AbstractIncomingMessage) -> DeadLetter:
    """Read a dead letter that `Bus.dead_letter` stored, or that the broker moved there after too many deliveries."""
    headers: dict[str, Any] = dict(message.headers)
    deaths = headers.get("x-death")
    death: Any = deaths[0] if isinstance(deaths, list) and deaths else {}
    at = headers.get("at")
    reason = str(headers.get("reason") or death.get("reason") or "")
    queue = str(headers.get("queue") or death.get("queue") or "")
    return DeadLetter(message.body, reason, queue, at if isinstance(at, int) else 0)
