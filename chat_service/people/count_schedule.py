"""When large rooms are sent their number of members online: at once, then at most every 5 s. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

COUNT_INTERVAL_MS = 5_000
ROOMS_REMEMBERED_MAX = 10_000


class OwedCount(NamedTuple):
    """A large room that is to be sent its number of members online."""

    room_id: str
    due_at_ms: int


class CountSchedule:
    """The counts that this announcer has sent and still owes.

    `taken_over_at_ms` is when it took over from another, who may have sent any count just before. Bound: the rooms of
    the last 5 s; if they are more than 10,000, all of them are forgotten, and may be sent their next count late.
    """

    def __init__(self, taken_over_at_ms: int | None = None) -> None:
        self._forgotten_at_ms = taken_over_at_ms
        self._sent_at_ms: dict[str, int] = {}  # oldest first
        self._owed: set[str] = set()
        self._next_due_ms = taken_over_at_ms  # None if no count is owed; the other may have left some

    def is_due(self, now_ms: int) -> bool:
        """Return whether a count may be due."""
        return self._next_due_ms is not None and self._next_due_ms <= now_ms

    def owe(self, room_ids: Collection[str], now_ms: int) -> dict[str, int]:
        """Return those of the rooms whose count is not owed yet, and when it will be due."""
        return {room_id: self._due_ms(room_id, now_ms) for room_id in room_ids if room_id not in self._owed}

    def _due_ms(self, room_id: str, now_ms: int) -> int:
        sent_at_ms = self._sent_at_ms.get(room_id, self._forgotten_at_ms)
        return now_ms if sent_at_ms is None else max(now_ms, sent_at_ms + COUNT_INTERVAL_MS)

    def note_owed(self, due_ms: Mapping[str, int]) -> None:
        """Record that these counts are stored as owed."""
        self._owed.update(due_ms)
        known = () if self._next_due_ms is None else (self._next_due_ms,)
        self._next_due_ms = min((*due_ms.values(), *known), default=None)

    def due(self, owed: Collection[OwedCount], now_ms: int, *, is_all: bool) -> list[str]:
        """Return the rooms that are due now. `owed` are the counts that are due first, or all."""
        later = [count.due_at_ms for count in owed if count.due_at_ms > now_ms]
        self._next_due_ms = min(later, default=None if is_all else now_ms)
        return [count.room_id for count in owed if count.due_at_ms <= now_ms]

    def note_sending(self, room_ids: Collection[str], now_ms: int) -> None:
        """Record that the members of these rooms are being counted: a later change owes another count."""
        for room_id in room_ids:
            self._owed.discard(room_id)
            self._sent_at_ms.pop(room_id, None)
            self._sent_at_ms[room_id] = now_ms
        while self._sent_at_ms and now_ms - next(iter(self._sent_at_ms.values())) >= COUNT_INTERVAL_MS:
            del self._sent_at_ms[next(iter(self._sent_at_ms))]
        if len(self._sent_at_ms) > ROOMS_REMEMBERED_MAX:
            self._forgotten_at_ms = now_ms
            self._sent_at_ms.clear()
