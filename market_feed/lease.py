"""The lease of the symbols: one process at a time owns them. Pure.

Ownership only routes. Two owners at once are safe, because the journal is the lock (see journal.py); the cost is a
repeated batch. So a stand-by may take over early, even if the owner is alive.

The owner sends a heartbeat every half second, which increments `beat`; the database stamps it with its own time. A
stand-by reads the stamp's age by the same clock, so host clocks do not matter.

    a heartbeat within 1 s        HELD
    none for 1 s                  DOUBTED: killed, if the broker has dropped the owner's queue with its connection
    none for the lease's length   FREE: the owner is frozen or cut off

The owner's lease time starts before it sends the heartbeat, and the database stamps the heartbeat later. So an owner
whose lease has run out has stopped before a stand-by takes it. `term` grows with every takeover and is the leading part
of every seq, so gateways and clients drop a stale owner's prices. A restore takes the term back. So the first takeover
in a new generation of the database skips terms: prices after the restore have higher seqs than all before it.
"""

from enum import Enum, auto

import msgspec

BEAT_S = 0.5
DOUBT_S = 2 * BEAT_S
LOOK_S = 0.2
TERMS_SKIPPED = 1_000  # exceeds the takeovers between a backup and its restore; a seq has room for 900 such skips


class Lease(msgspec.Struct, frozen=True):
    """The lease in the database. Without `holder` it is free.

    `age_s` is the age of the last heartbeat by the database's clock, None for those of release 0.2, which have no
    stamp. `queue` is the holder's queue at the broker, None while the holder is not connected. `generation` is that of
    the database at the last takeover, None for leases of earlier releases.
    """

    term: int = 0
    beat: int = 0
    holder: str | None = None
    queue: str | None = None
    age_s: float | None = None
    generation: str | None = None

    def next_term(self, generation: str) -> int:
        """Return the term of a takeover in this generation of the database."""
        is_continued = not self.term or self.generation == generation
        return self.term + (1 if is_continued else TERMS_SKIPPED)


class LeaseState(Enum):
    """The lease as a stand-by sees it."""

    HELD = auto()
    DOUBTED = auto()
    FREE = auto()


class LeaseMonitor:
    """Derives the state of the lease for a stand-by."""

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._beat: tuple[int, int, str | None] | None = None
        self._since_s = 0.0
        self._trusted_from_s: float | None = 0.0  # None while the database cannot be read
        self.owner_lives = False
        self.look_again_s = LOOK_S

    def judge(self, lease: Lease, now_s: float) -> LeaseState:
        """Return the state of a lease that was just read."""
        age_s = self._age_s(lease, now_s)
        self.owner_lives = lease.holder is not None and age_s < self._length_s
        self.look_again_s = LOOK_S if age_s >= DOUBT_S else min(max(DOUBT_S - age_s, LOOK_S / 4), BEAT_S)
        if lease.holder is None:
            return LeaseState.FREE
        if self._trusted_from_s is None:  # while the database was down, the owner could not send heartbeats either
            self._trusted_from_s = now_s + DOUBT_S
        if now_s < self._trusted_from_s or age_s < DOUBT_S:
            return LeaseState.HELD
        return LeaseState.FREE if age_s >= self._length_s else LeaseState.DOUBTED

    def unreadable(self) -> None:
        """Note that the database is unavailable; afterwards the owner gets time for a heartbeat."""
        self._trusted_from_s = None
        self.look_again_s = LOOK_S

    def _age_s(self, lease: Lease, now_s: float) -> float:
        """Return the age of the last heartbeat. Without a stamp, its age runs from when it was first seen."""
        beat = lease.term, lease.beat, lease.holder
        if beat != self._beat:
            self._beat, self._since_s = beat, now_s
        return now_s - self._since_s if lease.age_s is None else lease.age_s
