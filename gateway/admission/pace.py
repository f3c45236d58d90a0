"""Adaptive limit on concurrent connection set-up. Pure: the clock is passed in.

    connection ── arrived ──> upgrade ── settled ──> idle ── began ──> auth, subscriptions ── ended ──> open

A connection between arrived and settled, or between began and ended, is work in progress. `Pace` limits it. Above the
limit no client is set up and no connection is accepted, so the backlog waits in the kernel at no cost. The limit
follows the lag of the event loop and the duration of set-ups. A silent client costs no work.
"""

from collections.abc import Hashable

AT_ONCE_MIN = 32
AT_ONCE_FIRST = 48
AT_ONCE_MAX = 64  # above this, clients only delay each other and all messages
AT_ONCE_STEP = 8
# A client sends its request right after connecting, so a connection without one stops counting after 50 ms. A few
# hundred idle connections per second thus delay no client.
ARRIVAL_GRACE_S = 0.05
SERVICE_GRACE_S = 1.0
LATE_S = 0.1
ON_TIME_S = 0.05
TOO_LATE_S = 0.25
BUSY_AFTER = 20  # measurements in a row


class Pace:
    """The limit on concurrent set-ups.

    A connection that sends no request within ARRIVAL_GRACE_S waits for its client, and a client that is not set up
    within SERVICE_GRACE_S waits for a service. Neither loads this event loop, so neither counts any longer.
    """

    def __init__(self) -> None:
        self.waiting = 0  # clients in the queue, set by `AdmissionQueue`
        self._arrived_at_s: dict[Hashable, float] = {}  # oldest first, like `_began_at_s`
        self._began_at_s: dict[Hashable, float] = {}
        self._limit = float(AT_ONCE_FIRST)
        self._served = 0
        self._served_s = 0.0
        self._too_late = 0

    @property
    def is_busy(self) -> bool:
        """Return whether the event loop keeps lagging although the limit is at its minimum."""
        return self._too_late >= BUSY_AFTER

    @property
    def limit(self) -> int:
        """Return the current limit."""
        return int(self._limit)

    def has_room(self, now_s: float) -> bool:
        """Return whether one more connection may be accepted."""
        return self._in_progress(now_s) < self.limit

    def is_idle(self, now_s: float) -> bool:
        """Return whether no client arrives, waits, or is set up."""
        return not self._in_progress(now_s)

    def _in_progress(self, now_s: float) -> int:
        _drop_older(self._arrived_at_s, now_s - ARRIVAL_GRACE_S)
        _drop_older(self._began_at_s, now_s - SERVICE_GRACE_S)
        return len(self._arrived_at_s) + self.waiting + len(self._began_at_s)

    def arrived(self, key: Hashable, now_s: float) -> None:
        """Record that a connection was accepted."""
        self._arrived_at_s[key] = now_s

    def settled(self, key: Hashable) -> None:
        """Record that the connection's request was answered or the connection is gone."""
        self._arrived_at_s.pop(key, None)

    def may_serve(self, now_s: float) -> bool:
        """Return whether one more client may be set up: authenticated, its subscriptions restored."""
        _drop_older(self._began_at_s, now_s - SERVICE_GRACE_S)
        return len(self._began_at_s) < self.limit

    def began(self, key: Hashable, now_s: float) -> None:
        """Record that the set-up of a client has started."""
        self._began_at_s[key] = now_s

    def ended(self, key: Hashable, took_s: float) -> None:
        """Record that the set-up has ended and how long it took: the input of the adaptive limit."""
        self._began_at_s.pop(key, None)
        self._served += 1
        self._served_s += took_s

    def measured(self, late_s: float) -> None:
        """Adjust the limit to the event loop's lag and the average set-up time since the last call.

        If the slower of the two is above LATE_S, the limit falls by a third. If it is below ON_TIME_S, the limit rises
        by a step.
        """
        self._too_late = self._too_late + 1 if late_s > TOO_LATE_S and self._limit <= AT_ONCE_MIN else 0
        slowest_s = max(late_s, self._served_s / max(self._served, 1))
        self._served, self._served_s = 0, 0.0
        if slowest_s > LATE_S:
            self._limit = max(self._limit * 2 / 3, AT_ONCE_MIN)
        elif slowest_s < ON_TIME_S:
            self._limit = min(self._limit + AT_ONCE_STEP, AT_ONCE_MAX)


def _drop_older(at_s: dict[Hashable, float], than_s: float) -> None:
    """Drop entries up to `than_s` from a dict that is ordered by age."""
    while at_s and at_s[oldest := next(iter(at_s))] <= than_s:
        del at_s[oldest]
