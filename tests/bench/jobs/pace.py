"""An open loop: so many a second, whatever becomes of them."""

import asyncio
from collections.abc import AsyncIterator

from tests.bench.marks import now_us
from tests.bench.tally import MeasureWindow
from tests.bench.worker import sleep_until

TURN_S = 0.001


async def paced(window: MeasureWindow, rate: float) -> AsyncIterator[int]:
    """Yield how many are due, about every millisecond, from the window's begin to its end."""
    await sleep_until(window.begin_us, now_us())
    done = 0
    while (now := now_us()) < window.until_us:
        due = int((now - window.begin_us) * rate / 1e6) + 1
        if due > done:
            yield due - done
            done = due
        await asyncio.sleep(TURN_S)
