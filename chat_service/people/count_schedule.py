"""The schedule for sending large rooms their number of members online: at once, then at most every 5 s. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

COUNT_INTERVAL_MS = 5_000
ROOMS_REMEMBERED_MAX = 10_000


class RoomCounts(NamedTuple):
    """Which large rooms get a count because of changes: those due now, and when the others are due."""

    now: list[str]
    due_ms: dict[str, int]


class CountSchedule:
    """The counts that this announcer has sent in the last 5 s, and the pending ones.

    `taken_over_at_ms` is when this replica became announcer, or restarted after a failure: any count may have been sent
    just before. Bound: the large rooms with changes in the last 5 s. If more than 10,000 rooms were sent a count, all
    are forgotten, and wait 5 s before their next count.
    """

    def __init__(self, taken_over_at_ms: int | None = None) -> None:
        self._forgotten_at_ms = taken_over_at_ms
        self._sent_at_ms: dict[str, int] = {}  # oldest first
        self._pending: dict[str, int] = {}  # due times

    def is_due(self, now_ms: int) -> bool:
        """Return whether a count is due."""
        return min(self._pending.values(), default=now_ms + 1) <= now_ms

    def note_changes(self, room_ids: Collection[str], now_ms: int) -> RoomCounts:
        """Return the counts that changes in these rooms cause. Rooms whose count is pending already are left out."""
        counts = RoomCounts([], {})
        for room_id in room_ids:
            if room_id in self._pending:
                continue
            sent_at_ms = self._sent_at_ms.get(room_id, self._forgotten_at_ms)
            if sent_at_ms is None or now_ms - sent_at_ms >= COUNT_INTERVAL_MS:
                counts.now.append(room_id)
            else:
                counts.due_ms[room_id] = sent_at_ms + COUNT_INTERVAL_MS
        return counts

    def note_pending(self, due_ms: Mapping[str, int]) -> None:
        """Record that these counts are stored as pending."""
        self._pending |= due_ms

    def due(self, now_ms: int, limit: int) -> list[str]:
        """Return at most `limit` rooms whose count is due, earliest first."""
        due = sorted((at_ms, room_id) for room_id, at_ms in self._pending.items() if at_ms <= now_ms)
        return [room_id for _, room_id in due[:limit]]

    def note_sending(self, room_ids: Collection[str], now_ms: int) -> None:
        """Record that the members of these rooms are being counted: a later change needs another count."""
        for room_id in room_ids:
            self._pending.pop(room_id, None)
            self._sent_at_ms.pop(room_id, None)
            self._sent_at_ms[room_id] = now_ms
        while self._sent_at_ms and now_ms - next(iter(self._sent_at_ms.values())) >= COUNT_INTERVAL_MS:
            del self._sent_at_ms[next(iter(self._sent_at_ms))]
        if len(self._sent_at_ms) > ROOMS_REMEMBERED_MAX:
            self._forgotten_at_ms = now_ms
            self._sent_at_ms.clear()
