"""Timers of one process that tick together."""

import asyncio

import pytest

from shared import waiting
from shared.waiting import until_next


@pytest.mark.parametrize("interval_s", [0.004, 0.01, 0.03])
async def test_ticks_lie_on_the_grid_of_the_process(interval_s: float) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(3):
        before_s = loop.time()
        late_s = await until_next(interval_s)
        due_s = loop.time() - late_s
        assert before_s < due_s + 0.001
        assert due_s <= before_s + interval_s + 0.001
        off_s = (due_s - waiting._PHASE_S) % interval_s
        assert min(off_s, interval_s - off_s) < 0.001 or late_s == 0.0
