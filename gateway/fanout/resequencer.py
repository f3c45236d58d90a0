"""Resequencer: puts the items of one lossless source in order, without gaps or repeats. Pure."""

from typing import NamedTuple

BACKLOG_MAX = 10_000


class Gap(NamedTuple):
    """Items with `after` < position ≤ `through` are missing from a channel."""

    channel: str
    after: int
    through: int


class Resequencer:
    """Orders items by position.

    `last_position` is that of the last item passed on. Without listeners it is None, and no item is kept.

    Bound: 10,000 early items. Items beyond that are dropped and become part of the gap to be filled.
    """

    __slots__ = ("_early", "head_position", "last_position")

    def __init__(self) -> None:
        self.last_position: int | None = None
        self.head_position = 0  # the highest position known to exist
        self._early: dict[int, bytes] = {}

    def start(self, position: int) -> None:
        """Pass on the items after `position` from now on."""
        self.last_position = position
        self.note_head(position)

    def note_head(self, position: int) -> None:
        """Record that the source has an item `position`."""
        if position > self.head_position:
            self.head_position = position

    def rewind(self, position: int) -> None:
        """Go back to `position`, below `last_position`: the items in between count as missing again."""
        self.last_position = position

    def stop(self) -> None:
        """Forget everything: the last listener has left."""
        self.last_position = None
        self.head_position = 0
        self._early.clear()

    def offer(self, position: int, frame: bytes) -> list[tuple[int, bytes]]:
        """Accept an item and return the items that are now due, in order. HOT."""
        if position > self.head_position:
            self.head_position = position
        if self.last_position is None or position <= self.last_position:
            return []
        if position != self.last_position + 1:
            if len(self._early) < BACKLOG_MAX:
                self._early[position] = frame
            return []
        due = [(position, frame)]
        self.last_position = position
        while (next_frame := self._early.pop(self.last_position + 1, None)) is not None:
            self.last_position += 1
            due.append((self.last_position, next_frame))
        return due

    def skip_to(self, position: int) -> list[tuple[int, bytes]]:
        """Give up the missing items through `position`, which no store has. Return the items that are now due."""
        if self.last_position is None or position <= self.last_position:
            return []
        waiting = sorted((early, frame) for early, frame in self._early.items() if early <= position)
        for early, _ in waiting:
            del self._early[early]
        self.last_position = position
        following = self._early.pop(position + 1, None)
        return waiting + ([] if following is None else self.offer(position + 1, following))

    def early(self) -> dict[int, bytes]:
        """Return the items that arrived before missing ones, by position."""
        return dict(self._early)

    def missing(self, channel: str) -> Gap | None:
        """Return the gap that must be filled before the next item is due; None without one."""
        if self.last_position is None or self.head_position <= self.last_position:
            return None
        through = min(self._early) - 1 if self._early else self.head_position
        return Gap(channel, self.last_position, through)
