"""Waiting for an event with a time limit."""

import asyncio
from contextlib import suppress


async def is_set_within(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until the event is set, for `timeout_s` at most, and return whether it is."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    return event.is_set()
