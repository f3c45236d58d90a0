"""Resequencer: puts the items of one lossless source in order, without gaps or repeats. Pure."""

from typing import NamedTuple

BACKLOG_MAX = 10_000


class Gap(NamedTuple):
    """Items with `after` < seq ≤ `through` are missing from a channel."""

    channel: str
    after: int
    through: int


class Resequencer:
    """Orders items by seq. `last_seq` is the last one passed on; without listeners it is None and no item is kept.

    Bound: 10,000 early items. Items beyond that are dropped and become part of the gap to be filled.
    """

    __slots__ = ("_early", "head_seq", "last_seq")

    def __init__(self) -> None:
        self.last_seq: int | None = None
        self.head_seq = 0  # the highest seq known to exist
        self._early: dict[int, bytes] = {}

    def start(self, seq: int) -> None:
        """Pass on the items after `seq` from now on."""
        self.last_seq = seq
        self.note_head(seq)

    def note_head(self, seq: int) -> None:
        """Record that the source has an item `seq`."""
        if seq > self.head_seq:
            self.head_seq = seq

    def rewind(self, seq: int) -> None:
        """Go back to `seq`, below `last_seq`: the items in between count as missing again."""
        self.last_seq = seq

    def stop(self) -> None:
        """Forget everything: the last listener has left."""
        self.last_seq = None
        self.head_seq = 0
        self._early.clear()

    def offer(self, seq: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Accept an item and return the items that are now due, in order. HOT."""
        if seq > self.head_seq:
            self.head_seq = seq
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
        """Give up the missing items through `seq`, which are in no store. Return the items that are now due."""
        if self.last_seq is None or seq <= self.last_seq:
            return []
        waiting = sorted((early, frame) for early, frame in self._early.items() if early <= seq)
        for early, _ in waiting:
            del self._early[early]
        self.last_seq = seq
        following = self._early.pop(seq + 1, None)
        return waiting + ([] if following is None else self.offer(seq + 1, following))

    def early(self) -> dict[int, bytes]:
        """Return the items that arrived before missing ones, by seq."""
        return dict(self._early)

    def missing(self, channel: str) -> Gap | None:
        """Return the gap that must be filled before the next item is due; None without one."""
        if self.last_seq is None or self.head_seq <= self.last_seq:
            return None
        through = min(self._early) - 1 if self._early else self.head_seq
        return Gap(channel, self.last_seq, through)
