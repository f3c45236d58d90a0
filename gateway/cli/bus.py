"""Bus operations of the command line: publish an event, list and replay dead letters."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.bus.amqp import CONNECTION_LOST_ERRORS
from shared.bus.broker_connection import BrokerConnection
from shared.bus.broker_objects import DeadLetter
from shared.bus.bus import Bus
from shared.bus.events import decode_event
from shared.bus.hosts import BrokerHosts
from shared.bus.topology import EVENTS
from shared.errors import RealtimeError, Unavailable
from shared.ids import Prefix, new_id

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0


async def publish(amqp_url: str, body: bytes) -> None:
    """Publish an event and wait for the broker's confirm. Raises Malformed, Unavailable.

    A bus would declare the topology, for which the account of a publisher has no right.
    """
    event = decode_event(body)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            link = await BrokerConnection.open(BrokerHosts(amqp_url), new_id(Prefix.NODE))
            try:
                await link.publish(EVENTS, event.type, body, message_id=event.id, is_persistent=True)
            finally:
                await link.close()
    except CONNECTION_LOST_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(f"cannot publish: {reason}; check AMQP_URL and the account's permissions") from error


async def list_dead_letters(amqp_url: str) -> list[DeadLetter]:
    """Return all dead letters, oldest first, and leave them in place. Raises Unavailable."""
    found: list[DeadLetter] = []

    async def look(letter: DeadLetter) -> bool:
        found.append(letter)
        return False

    await _on_bus(amqp_url, lambda bus: bus.queues.dead_letters(look))
    return found


async def replay_dead_letters(amqp_url: str, is_chosen: Callable[[int, DeadLetter], bool]) -> int:
    """Put the chosen dead letters back into their queues, and return how many.

    `is_chosen` gets the number of a dead letter, counted from 1 from the oldest. A dead letter is removed once its
    queue has confirmed it; a message that fails again becomes a new dead letter. One whose queue does not exist stays.
    Raises Unavailable; then the dead letters before the failure are replayed, the last one perhaps twice.
    """
    seen = replayed = 0

    async def work(bus: Bus) -> None:
        async def settle(letter: DeadLetter) -> bool:
            nonlocal seen, replayed
            seen += 1
            if not letter.queue or not is_chosen(seen, letter) or not await bus.queues.replay(letter):
                return False
            replayed += 1
            return True

        await bus.queues.dead_letters(settle)

    await _on_bus(amqp_url, work)
    return replayed


async def _on_bus(amqp_url: str, work: Callable[[Bus], Awaitable[T]]) -> T:
    """Run `work` on a connected bus. Errors are raised bare, not in the exception group of the bus's tasks."""
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await bus.wait_connected()
            return await work(bus)
        except TimeoutError:
            failure: RealtimeError = Unavailable("cannot reach the broker: check AMQP_URL")
        except RealtimeError as error:
            failure = error
    raise failure
