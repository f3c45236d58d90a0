"""The lease of the symbols: one process at a time owns them. Pure.

No clock is compared with another one. The owner increments `beat` several times within the lease's length; a stand-by
that has seen the same beat for a whole length takes over. The owner counts the length from before it sent a beat, a
stand-by from after it saw the beat, so the owner stops first. `term` counts the takeovers and is a fencing token: seqs
and batch numbers begin with it, so a stale owner's writes sort before the new owner's.
"""

import msgspec

BEATS_PER_LENGTH = 5


class Lease(msgspec.Struct, frozen=True):
    """The lease in the database. It is free without `holder`."""

    term: int = 0
    beat: int = 0
    holder: str | None = None


class LeaseMonitor:
    """A stand-by's view of the lease."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._lease: Lease | None = None
        self._since_s = 0.0
        self.owner_lives = False  # whether the beat was observed to change

    def may_take(self, lease: Lease, now_s: float) -> bool:
        """Observe the lease, and return whether it is free or its holder is dead."""
        if lease.holder is None:
            self.owner_lives = False
            return True
        if lease != self._lease:
            self.owner_lives = self._lease is not None
            self._lease, self._since_s = lease, now_s
            return False
        if now_s - self._since_s < self._length_s:
            return False
        self.owner_lives = False
        return True
