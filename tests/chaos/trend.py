"""Growth of a figure over a run: a straight line through its samples. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

WARM_UP = 0.3  # share of the run in which caches fill


class Trend(NamedTuple):
    """The line's first and last value, and the maximum sample."""

    first: float
    last: float
    most: float

    @property
    def growth(self) -> float:
        """Return the rise of the line over the run."""
        return self.last - self.first


def trend(samples: Sequence[tuple[float, float]]) -> Trend:
    """Return the least-squares line through (time, value), without the warm-up. Fewer than two samples are flat."""
    if not samples:
        return Trend(0.0, 0.0, 0.0)
    begun_s, ended_s = samples[0][0], samples[-1][0]
    kept = [(at, value) for at, value in samples if at >= begun_s + WARM_UP * (ended_s - begun_s)]
    count = len(kept)
    mean_at, mean = sum(at for at, _ in kept) / count, sum(value for _, value in kept) / count
    spread = sum((at - mean_at) ** 2 for at, _ in kept)
    slope = sum((at - mean_at) * (value - mean) for at, value in kept) / spread if spread else 0.0
    first, last = (mean + slope * (at - mean_at) for at in (kept[0][0], kept[-1][0]))
    return Trend(first, last, max(value for _, value in samples))
