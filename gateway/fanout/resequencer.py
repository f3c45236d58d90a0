"""One lossless source put in order: no gap, no repeat. Pure."""

from typing import NamedTuple

BACKLOG_MAX = 10_000


class Gap(NamedTuple):
    """Items with `after` < seq ≤ `through` are missing from a channel."""

    channel: str
    after: int
    through: int


class Stream:
    """Items by seq. `last_seq` is the last one passed on; None while nobody listens, and then nothing is kept.

    What comes too early waits, at most 10,000 items; beyond that it is dropped, and so part of the gap to be filled.
    """

    __slots__ = ("_early", "heard_seq", "last_seq")

    def __init__(self) -> None:
        self.last_seq: int | None = None
        self.heard_seq = 0  # the highest seq that anyone has told us of
        self._early: dict[int, bytes] = {}

    def start(self, seq: int) -> None:
        """Somebody listens from behind `seq` on."""
        self.last_seq = seq
        self.heard_seq = max(self.heard_seq, seq)

    def rewind(self, seq: int) -> None:
        """Somebody needs what is behind `seq`, and it is less than what has been passed on: that is missing again."""
        self.last_seq = seq

    def stop(self) -> None:
        """Nobody listens any more."""
        self.last_seq = None
        self.heard_seq = 0
        self._early.clear()

    def offer(self, seq: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Take an item; returns those that are now due, in order."""
        self.heard_seq = max(self.heard_seq, seq)
        if self.last_seq is None or seq <= self.last_seq:
            return []
        if seq != self.last_seq + 1:
            if len(self._early) < BACKLOG_MAX:
                self._early[seq] = frame
            return []
        due = [(seq, frame)]
        self.last_seq = seq
        while (next_frame := self._early.pop(self.last_seq + 1, None)) is not None:
            self.last_seq += 1
            due.append((self.last_seq, next_frame))
        return due

    def skip_to(self, seq: int) -> list[tuple[int, bytes]]:
        """Give up on what is missing up to `seq`: it is nowhere to be had. Returns what is due behind it."""
        if self.last_seq is None or seq <= self.last_seq:
            return []
        waiting = sorted((early, frame) for early, frame in self._early.items() if early <= seq)
        for early, _ in waiting:
            del self._early[early]
        self.last_seq = seq
        following = self._early.pop(seq + 1, None)
        return waiting + ([] if following is None else self.offer(seq + 1, following))

    def early(self) -> dict[int, bytes]:
        """What has come and cannot be passed on yet, by seq."""
        return dict(self._early)

    def missing(self, channel: str) -> Gap | None:
        """What has to be fetched before anything more can be passed on."""
        if self.last_seq is None or self.heard_seq <= self.last_seq:
            return None
        through = min(self._early) - 1 if self._early else self.heard_seq
        return Gap(channel, self.last_seq, through)
