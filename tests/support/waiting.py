"""Waiting for a condition with a deadline, instead of for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_INTERVAL_S = 0.02


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return once `condition` holds; raise TimeoutError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"after {timeout_s} s it still does not hold")
        await asyncio.sleep(_POLL_INTERVAL_S)


def block_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Return once `condition` holds, without an event loop; raise TimeoutError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"after {timeout_s} s it still does not hold")
        time.sleep(_POLL_INTERVAL_S)


async def until_async(look: Callable[[], Awaitable[T]], fits: Callable[[T], bool], timeout_s: float = 10.0) -> T:
    """Return the result of `look` once it fits; raise TimeoutError after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not fits(found := await look()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"after {timeout_s} s it still does not fit")
        await asyncio.sleep(_POLL_INTERVAL_S)
    return found
