"""Times on the wire: ISO 8601, UTC, milliseconds, `Z`. In the code: integer milliseconds since 1970."""

import time
from datetime import UTC, datetime, tzinfo
from functools import lru_cache

MILLISECONDS_PER_DAY = 86_400_000
SKEW_MAX_MS = 2_000  # a process whose host clock differs more from the database server's is not ready


def now_ms() -> int:
    """Return the wall-clock time, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Return the time of the monotonic clock, in milliseconds."""
    return time.monotonic_ns() // 1_000_000


def clock_problem(skew_ms: int) -> str | None:
    """Return the reason not to be ready, or None if the two clocks differ by at most 2 s.

    The host clock is `skew_ms` behind the database server's.
    """
    if abs(skew_ms) <= SKEW_MAX_MS:
        return None
    return f"clock: the host is {-skew_ms / 1000:+.1f} s off the database server"


def to_iso(at_ms: int) -> str:
    """Return a time as text: 1761048000000 gives '2025-10-21T12:00:00.000Z'."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{_iso_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1024)  # most times lie in the current second: 0.3 us instead of 1.6
def _iso_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def from_iso(text: str, *, default_zone: tzinfo | None = None) -> int:
    """Parse ISO 8601, in any precision, with `Z` or an offset unless there is a default. Raises ValueError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        if default_zone is None:
            raise ValueError("a time needs Z or an offset")
        at = at.replace(tzinfo=default_zone)
    return round(at.timestamp() * 1000)
