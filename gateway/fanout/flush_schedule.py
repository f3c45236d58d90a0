"""Flush schedule: which lanes hold items, and when each is written. Pure; the clock is an argument."""

import heapq
import itertools
from collections.abc import Callable

from gateway.fanout.lane import Lane, Written

GATHER_MIN_S = 0.005
GATHER_MAX_S = 0.030
# A lane's next flush begins two flush durations after its last one began, so that other work gets half of the time.
GATHER_FLUSHES = 2.0


def _ignore(_: float) -> None:
    """Report nothing."""


class FlushSchedule:
    """A heap of the lanes that are due, and the pace of all lanes.

    `on_due(due_s)` reports that a lane is due earlier than all others; the owner must call `flush` at that time. Cost:
    O(log lanes) per lane and flush, nothing per item.
    """

    def __init__(self, on_due: Callable[[float], None] = _ignore) -> None:
        self.written = Written()
        self.gather_s = GATHER_MIN_S
        self._on_due = on_due
        self._due: list[tuple[float, int, Lane]] = []
        self._numbers = itertools.count()  # breaks ties: lanes are not comparable

    def add(self, lane: Lane, now_s: float) -> None:
        """Schedule the flush of a lane that received an item. Do not call it for a lane that is `due` already."""
        lane.due = True
        due_s = lane.due_at_s(now_s, self.gather_s)
        is_first = not self._due or due_s < self._due[0][0]
        heapq.heappush(self._due, (due_s, next(self._numbers), lane))
        if is_first:
            self._on_due(due_s)

    def flush(self, now_s: float) -> None:
        """Write every lane that is due."""
        while self._due and self._due[0][0] <= now_s:
            lane = heapq.heappop(self._due)[2]
            lane.due = False
            lane.flush(now_s, self.written)

    def flush_early(self, lane: Lane) -> None:
        """Write a lane before its sockets change. The pace is unchanged."""
        if lane.items:
            lane.flush(lane.flushed_at_s, self.written)

    def pace(self, flush_s: float) -> None:
        """Set the gathering time, at most 30 ms, from the duration of the last flush.

        The pace recovers slowly, so that one quick flush among slow ones changes little.
        """
        wanted_s = min(max(GATHER_FLUSHES * flush_s, GATHER_MIN_S), GATHER_MAX_S)
        self.gather_s = max(wanted_s, (wanted_s + 3 * self.gather_s) / 4)

    @property
    def next_due_s(self) -> float | None:
        """Return the time of the next flush; None if no lane holds items."""
        return self._due[0][0] if self._due else None
