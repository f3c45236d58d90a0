"""What the command line does on the bus: publish an event as an internal service does, and see to dead letters."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.bus.amqp import DeadLetter
from shared.bus.bus import Bus
from shared.bus.events import decode_event
from shared.bus.topology import EVENTS
from shared.errors import RealtimeError, Unavailable
from shared.ids import Prefix, new_id

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0


async def publish(amqp_url: str, body: bytes) -> None:
    """Publish an event; returns once the broker has confirmed it. Raises Malformed, Unavailable."""
    event = decode_event(body)

    async def work(bus: Bus) -> None:
        await bus.publish(EVENTS, event.type, body)

    await _on_bus(amqp_url, work)


async def list_letters(amqp_url: str) -> list[DeadLetter]:
    """All dead letters, oldest first; they stay where they are. Raises Unavailable."""
    found: list[DeadLetter] = []

    async def look(letter: DeadLetter) -> bool:
        found.append(letter)
        return False

    await _on_bus(amqp_url, lambda bus: bus.letters(look))
    return found


async def replay_letters(amqp_url: str, is_chosen: Callable[[int, DeadLetter], bool]) -> int:
    """Give the chosen ones back to the queues that they came from, each gone once its queue has it; how many these are.

    `is_chosen` gets the number of a letter, from 1, oldest first. One that is wrong still comes back as a new letter.
    Raises Unavailable; those so far are replayed then, the last of them perhaps twice.
    """
    seen = replayed = 0

    async def work(bus: Bus) -> None:
        async def settle(letter: DeadLetter) -> bool:
            nonlocal seen, replayed
            seen += 1
            if not letter.queue or not is_chosen(seen, letter):
                return False
            await bus.publish("", letter.queue, letter.body)
            replayed += 1
            return True

        await bus.letters(settle)

    await _on_bus(amqp_url, work)
    return replayed


async def _on_bus(amqp_url: str, work: Callable[[Bus], Awaitable[T]]) -> T:
    """Do `work` on a connected bus. What it raises is raised as it is, and not as the bus's task group would."""
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await bus.wait_connected()
            return await work(bus)
        except TimeoutError:
            failure: RealtimeError = Unavailable("the broker cannot be reached: see AMQP_URL")
        except RealtimeError as error:
            failure = error
    raise failure
