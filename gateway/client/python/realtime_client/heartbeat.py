"""Detection of a dead connection. Pure.

Times are seconds of one monotonic clock.
"""

import math


class Heartbeat:
    """Schedule of pings, and the deadline by which the server must send a frame.

    Any frame meets the deadline, since the answer may follow a long replay.
    """

    def __init__(self, interval_s: float, answer_timeout_s: float) -> None:
        self.interval_s = interval_s
        self.ping_at_s = math.inf
        self.frame_by_s = math.inf
        self._answer_timeout_s = answer_timeout_s
        self._pings: dict[str, float] = {}

    @property
    def deadline_s(self) -> float:
        """Return the time of the next ping or of the frame deadline, whichever is earlier."""
        return min(self.ping_at_s, self.frame_by_s)

    def start(self, now_s: float) -> None:
        """Schedule the first ping of a connection."""
        self.ping_at_s = now_s + self.interval_s

    def stop(self) -> None:
        """Cancel the ping and the frame deadline of a lost connection."""
        self.ping_at_s = self.frame_by_s = math.inf
        self._pings.clear()

    def expect_frame(self, now_s: float) -> None:
        """Set the frame deadline, unless an earlier one is set."""
        self.frame_by_s = min(self.frame_by_s, now_s + self._answer_timeout_s)

    def frame_received(self) -> None:
        """Clear the frame deadline."""
        self.frame_by_s = math.inf

    def pinged(self, id_: str, now_s: float) -> None:
        """Record a ping and schedule the next one."""
        self._pings[id_] = now_s
        self.ping_at_s = now_s + self.interval_s

    def round_trip_s(self, pong_id: object, now_s: float) -> float | None:
        """Return the latency that a pong shows, or None if its ping is unknown."""
        if not isinstance(pong_id, str) or pong_id not in self._pings:
            return None
        latency_s = now_s - self._pings[pong_id]
        self._pings.clear()
        return latency_s
