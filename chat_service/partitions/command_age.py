"""The age of commands without comparing clocks of two hosts. Pure.

A gateway stamps what it sends with its own monotonic clock. `arrived - sent` is then the offset of the two clocks plus
the transit time; the smallest such difference of the last minute comes closest to the offset alone. The age of a body
is its own difference less that minimum. Every gateway sends a stamp each second, so that a body delayed by a full queue
or a frozen process does not pass for a young one. Without a stamp in the last minute the age is unknown, and the body
is answered "moved".
"""

BUCKET_MS = 10_000
BUCKETS = 6
GATEWAYS_MAX = 10_000


class CommandAges:
    """Smallest clock differences by gateway. Bound: six for each of 10,000 gateways; evicts the longest silent."""

    def __init__(self) -> None:
        self._minima: dict[str, dict[int, int]] = {}  # by gateway: smallest difference by bucket of arrival time

    def note(self, gateway: str, sent_at_ms: int, arrived_at_ms: int) -> None:
        """Note a stamp of a gateway, which sends one every second."""
        bucket = arrived_at_ms // BUCKET_MS
        minima = self._minima.pop(gateway, {})
        for old in [number for number in minima if number <= bucket - BUCKETS]:
            del minima[old]
        minima[bucket] = min(minima.get(bucket, arrived_at_ms - sent_at_ms), arrived_at_ms - sent_at_ms)
        self._minima[gateway] = minima
        while len(self._minima) > GATEWAYS_MAX:
            del self._minima[next(iter(self._minima))]

    def age_ms(self, gateway: str, sent_at_ms: int, arrived_at_ms: int) -> int | None:
        """Return the transit time of a body in milliseconds; None without a stamp from the last minute."""
        oldest = arrived_at_ms // BUCKET_MS - BUCKETS
        fresh = [least for number, least in self._minima.get(gateway, {}).items() if number > oldest]
        return max(arrived_at_ms - sent_at_ms - min(fresh), 0) if fresh else None
