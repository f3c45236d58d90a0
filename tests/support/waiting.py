"""Waiting for a condition, with a deadline, instead of for a time."""

import asyncio
import time
from collections.abc import Callable

_POLL_INTERVAL_S = 0.02


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return once `condition` holds; raise TimeoutError when it does not within `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"after {timeout_s} s it still does not hold")
        await asyncio.sleep(_POLL_INTERVAL_S)


def block_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Do the same without an event loop."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"after {timeout_s} s it still does not hold")
        time.sleep(_POLL_INTERVAL_S)
