"""A limit on repeated log lines. Pure: the clock is passed in.

One line of a kind passes in a second. The next one that passes carries the number of those left out.
"""

import time
from collections.abc import Callable, Hashable

INTERVAL_S = 1.0
KINDS_MAX = 1_000  # texts of libraries may be of any number


class LogThrottle:
    """Decides which lines are written."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._shut_until_s: dict[Hashable, float] = {}
        self._left_out: dict[Hashable, int] = {}

    def admit(self, kind: Hashable) -> int | None:
        """Return how many lines of this kind were left out before this one; None to leave this one out too."""
        now_s = self._clock_s()
        if self._shut_until_s.get(kind, 0.0) > now_s:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return None
        if len(self._shut_until_s) >= KINDS_MAX:
            self._shut_until_s.clear()
        self._shut_until_s[kind] = now_s + INTERVAL_S
        return self._left_out.pop(kind, 0)
