"""An open loop: a fixed rate, independent of the outcome."""

import asyncio
from collections.abc import AsyncIterator

from tests.bench.marks import now_us
from tests.bench.tally import MeasureWindow
from tests.bench.worker import sleep_until

TURN_S = 0.001


async def paced(window: MeasureWindow, rate: float) -> AsyncIterator[int]:
    """Yield the number of due items, about every millisecond, from the start to the end of the window."""
    await sleep_until(window.begin_us, now_us())
    done = 0
    while (now := now_us()) < window.until_us:
        due = int((now - window.begin_us) * rate / 1e6) + 1
        if due > done:
            yield due - done
            done = due
        await asyncio.sleep(TURN_S)
