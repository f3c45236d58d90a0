"""Who owns the symbols: one process at a time, by a lease in the database. Pure.

No clock is compared with another. The owner counts `beat` up, several times within the lease's length; a stand-by that
has seen the same beat for a whole length takes over. The owner counts its own length from before it sent a beat, a
stand-by from after it saw it: so the owner stops first. `term` counts the takeovers: seqs and batch numbers begin with
it, so that what an owner does that does not know yet that it is none comes before what the new one does.
"""

import msgspec

BEATS_PER_LENGTH = 5


class Lease(msgspec.Struct, frozen=True):
    """The lease as it stands in the database. Without `holder` it is free."""

    term: int = 0
    beat: int = 0
    holder: str | None = None


class LeaseMonitor:
    """What a stand-by makes of what it sees."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._lease: Lease | None = None
        self._since_s = 0.0
        self.owner_lives = False  # whether a beat was seen to change

    def may_take(self, lease: Lease, now_s: float) -> bool:
        """Look at the lease. Returns whether it is free, or its holder is gone."""
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
