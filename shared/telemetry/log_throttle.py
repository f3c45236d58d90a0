"""A limit on repeated log lines. Pure: the clock is passed in.

One line of a kind passes in a second. The next line that passes carries the number of suppressed lines.
"""

import time
from collections.abc import Callable, Hashable

INTERVAL_S = 1.0
KINDS_MAX = 1_000  # the number of library messages is unbounded


class LogThrottle:
    """Decides which lines are written."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._kinds: dict[Hashable, tuple[float, int]] = {}  # end of the suppression, number of suppressed lines

    def check(self, kind: Hashable) -> int | None:
        """Return the number of lines of this kind suppressed since the last one; None to suppress this one too."""
        now_s = self._clock_s()
        shut_until_s, left_out = self._kinds.get(kind, (0.0, 0))
        if shut_until_s > now_s:
            self._kinds[kind] = shut_until_s, left_out + 1
            return None
        if len(self._kinds) >= KINDS_MAX:
            self._kinds.clear()
        self._kinds[kind] = now_s + INTERVAL_S, 0
        return left_out
