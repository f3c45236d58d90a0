"""The flushes of lanes, and their report by the schedule."""

import pytest

from gateway.fanout.flush_schedule import GATHER_MAX_S, GATHER_MIN_S, FlushSchedule
from gateway.fanout.lane import Lane


def test_schedule_reports_only_an_earlier_due_time() -> None:
    reported: list[float] = []
    schedule = FlushSchedule(reported.append)
    busy, idle = Lane(), Lane()
    busy.flushed_at_s = 10.0
    schedule.add(busy, 10.0)
    schedule.add(Lane(), 10.0 + GATHER_MIN_S)
    assert reported == [pytest.approx(10.0 + GATHER_MIN_S)]
    schedule.add(idle, 10.0)
    assert reported[1:] == [10.0]
    schedule.flush(11.0)
    assert schedule.next_due_s is None
    assert not busy.due


def test_pace_rises_at_once_and_recovers_slowly() -> None:
    schedule = FlushSchedule()
    schedule.pace(1.0)
    assert schedule.gather_s == GATHER_MAX_S
    schedule.pace(0.0)
    assert GATHER_MIN_S < schedule.gather_s < GATHER_MAX_S
    for _ in range(100):
        schedule.pace(0.0)
    assert schedule.gather_s == pytest.approx(GATHER_MIN_S)
