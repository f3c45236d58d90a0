"""The highest rate that a server sustains, by a search with bounds on its trials and its time. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field

PROBE_S = 8.0
STEP = 1.07  # the resolution of the result
GROWTH = 2.0
CONFIRMATIONS_MAX = 4


@dataclass
class SaturationSearch:
    """Doubles the rate until it fails, bisects, and confirms over the full time.

    `holds(rate, seconds)` runs one trial. After `budget_s` no further trial begins, and the best rate so far counts.
    """

    holds: Callable[[float, float], bool]
    clock: Callable[[], float]
    budget_s: float
    confirm_s: float
    trials: list[tuple[float, float, bool]] = field(default_factory=list)

    def run(self, first: float, highest: float) -> float:
        """Return the highest confirmed rate, or 0.0 if none was confirmed."""
        self._deadline_s = self.clock() + self.budget_s
        low, high = self._bracket(first, highest)
        while high / max(low, 1.0) > STEP and self._has_time(PROBE_S):
            middle = (low * high) ** 0.5 if low else high / GROWTH
            if self._trial(middle, PROBE_S):
                low = middle
            else:
                high = middle
            if high < 1.0:
                return 0.0
        return self._confirm(low)

    def _bracket(self, first: float, highest: float) -> tuple[float, float]:
        """Return the last rate that held, or 0.0, and the first one that did not."""
        low, rate = 0.0, first
        while self._has_time(PROBE_S):
            if not self._trial(rate, PROBE_S):
                return low, rate
            low = rate
            if rate >= highest:
                return rate, rate
            rate = min(rate * GROWTH, highest)
        return low, rate

    def _confirm(self, rate: float) -> float:
        """Return the first rate, from `rate` down in steps, that holds over the full time."""
        for _ in range(CONFIRMATIONS_MAX):
            if rate < 1.0:
                return 0.0
            if self._trial(rate, self.confirm_s):
                return rate
            rate /= STEP
        return 0.0

    def _trial(self, rate: float, seconds: float) -> bool:
        held = self.holds(rate, seconds)
        self.trials.append((rate, seconds, held))
        return held

    def _has_time(self, seconds: float) -> bool:
        return self.clock() + seconds + self.confirm_s < self._deadline_s
