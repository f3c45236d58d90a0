"""Waiting: for an event with a time limit, and for the next tick of a timer."""

import asyncio
import random
from contextlib import suppress

# Where the ticks of this process lie within each second. Differs between processes, so that not all wake at once.
_PHASE_S = random.random()  # noqa: S311 - not a secret


async def is_set_within(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until the event is set, for `timeout_s` at most, and return whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    return event.is_set()


async def until_next(interval_s: float) -> float:
    """Sleep until the next tick of an interval, for `interval_s` at most, and return by how much the wake-up was late.

    The ticks of all timers of a process coincide where they can, so an idle process wakes for them together: a gateway
    18 times per second instead of 32.
    """
    loop = asyncio.get_running_loop()
    now_s = loop.time()
    due_s = now_s + interval_s - (now_s - _PHASE_S) % interval_s
    await asyncio.sleep(due_s - now_s)
    return max(loop.time() - due_s, 0.0)
