"""x. Pure."""

from collections.abc import Hashable

AT_ONCE_MIN = 32
AT_ONCE_FIRST = 48
AT_ONCE_MAX = 64  # more wait for each other, and everybody's messages for them: nobody is in sooner
AT_ONCE_STEP = 8
ARRIVAL_GRACE_S = 0.05  # a request comes with its connection; so some hundred silent ones a second hold up nobody
SERVICE_GRACE_S = 1.0
LATE_S = 0.1
ON_TIME_S = 0.05
TOO_LATE_S = 0.25
BUSY_AFTER = 20  # measurements in a row


class Pace:
    """How many may come in at a time. A connection that sends no request within ARRIVAL_GRACE_S waits for its client,
    a client that is not served within SERVICE_GRACE_S for a service: they are no work of this loop, and count no more.
    So they hold up nobody for longer."""

    def __init__(self) -> None:
        self.waiting = 0  # who wants to be served and is not yet; kept by `Turns`
        self._arrived_at_s: dict[Hashable, float] = {}  # oldest first, as the next one
        self._began_at_s: dict[Hashable, float] = {}
        self._most = float(AT_ONCE_FIRST)
        self._served = 0
        self._served_s = 0.0
        self._too_late = 0

    @property
    def is_busy(self) -> bool:
        """Whether the loop stays far too late although as few as can be are coming in."""
        return self._too_late >= BUSY_AFTER

    @property
    def most(self) -> int:
        """The bound of now."""
        return int(self._most)

    def has_room(self, now_s: float) -> bool:
        """Whether one more connection may be taken."""
        _drop_older(self._arrived_at_s, now_s - ARRIVAL_GRACE_S)
        _drop_older(self._began_at_s, now_s - SERVICE_GRACE_S)
        return len(self._arrived_at_s) + self.waiting + len(self._began_at_s) < self.most

    def arrived(self, key: Hashable, now_s: float) -> None:
        """A connection was taken."""
        self._arrived_at_s[key] = now_s

    def settled(self, key: Hashable) -> None:
        """Its request was answered, or it is gone."""
        self._arrived_at_s.pop(key, None)

    def may_serve(self, now_s: float) -> bool:
        """Whether one more client may be served: authenticated, its subscriptions restored."""
        _drop_older(self._began_at_s, now_s - SERVICE_GRACE_S)
        return len(self._began_at_s) < self.most

    def began(self, key: Hashable, now_s: float) -> None:
        """A client is served from now on."""
        self._began_at_s[key] = now_s

    def ended(self, key: Hashable, took_s: float) -> None:
        """It has been, and it took so long: what the services need under this load."""
        self._began_at_s.pop(key, None)
        self._served += 1
        self._served_s += took_s

    def measured(self, late_s: float) -> None:
        """The event loop ran so late. If it, or what clients waited for on average since the last time, was slow, the
        bound falls by a third; else it rises a step."""
        self._too_late = self._too_late + 1 if late_s > TOO_LATE_S and self._most <= AT_ONCE_MIN else 0
        slowest_s = max(late_s, self._served_s / max(self._served, 1))
        self._served, self._served_s = 0, 0.0
        if slowest_s > LATE_S:
            self._most = max(self._most * 2 / 3, AT_ONCE_MIN)
        elif slowest_s < ON_TIME_S:
            self._most = min(self._most + AT_ONCE_STEP, AT_ONCE_MAX)


def _drop_older(at_s: dict[Hashable, float], than_s: float) -> None:
    """Of entries with the oldest first."""
    while at_s and at_s[oldest := next(iter(at_s))] <= than_s:
        del at_s[oldest]
