"""The entries that wait to be handed to consumers, by room. Pure; the clock is an argument.

A room waits from the rev after the last one handed over through the newest one noted. Its entries are kept in memory
while they are contiguous and the backlog has space; otherwise only the two revs are kept, and the log has the entries.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from chat_service.rooms.log import LogEntry

ENTRIES_MAX = 5_000  # in memory: a second of the highest rate
ROOMS_REMEMBERED_MAX = 20_000
SPAN_MAX = 500


class EntrySpan(NamedTuple):
    """The next entries of a room: `after` < rev ≤ `through`. `entries` is None if they have to be read from the log."""

    room_id: str
    after: int
    through: int
    entries: Sequence[LogEntry] | None


class _Waiting:
    """The waiting entries of one room. `is_guess`: `after` was inferred from the first entry.

    `since_ms`: when this process received the first entry. `safe_ms`: the newest checkpoint from which another owner
    would still find the room.
    """

    __slots__ = ("after", "entries", "is_guess", "is_whole", "safe_ms", "since_ms", "through")

    def __init__(self, after: int, is_guess: bool, since_ms: int) -> None:
        self.after = self.through = after
        self.is_guess = is_guess
        self.is_whole = True
        self.since_ms = self.safe_ms = since_ms
        self.entries: list[LogEntry] = []


class Backlog:
    """Waiting entries. Bound: 5,000 in memory; beyond that, entries are read from the log again.

    A room costs two numbers while it waits, and one afterwards, for the last 20,000 rooms. No entry is noted while the
    database is unavailable, because none is committed.
    """

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._count = 0
        self._rooms: OrderedDict[str, _Waiting] = OrderedDict()  # waiting for the longest time first
        self._handed: OrderedDict[str, int] = OrderedDict()  # most recently handed over last

    def __len__(self) -> int:
        """Return the number of entries in memory."""
        return self._count

    @property
    def is_empty(self) -> bool:
        """Return whether no room waits."""
        return not self._rooms

    def note(self, entries: Iterable[LogEntry], now_ms: int) -> None:
        """Take committed entries; repeats are dropped. Those of a room come in rev order, apart from repeats."""
        for entry in entries:
            self._note(entry, now_ms)

    def _note(self, entry: LogEntry, now_ms: int) -> None:
        waiting = self._rooms.get(entry.room_id)
        if waiting is None:
            handed = self._handed.get(entry.room_id)
            if handed is not None and entry.rev <= handed:
                return
            after = entry.rev - 1 if handed is None else handed
            waiting = self._rooms[entry.room_id] = _Waiting(after, handed is None, now_ms)
        if entry.rev <= waiting.after and waiting.is_guess:
            self._forget_entries(waiting)
            waiting.after = entry.rev - 1
        if entry.rev <= waiting.through:
            return
        is_next = waiting.is_whole and entry.rev == waiting.through + 1
        waiting.through = entry.rev
        if is_next and self._count < self._entries_max:
            waiting.entries.append(entry)
            self._count += 1
        else:
            self._forget_entries(waiting)

    def resume(self, room_id: str, after: int, through: int, now_ms: int, safe_ms: int) -> None:
        """Wait for the entries of a room after its saved position `after`, through one that is in the log.

        The room was found by the checkpoint `safe_ms`, which must not advance before they are handed over. A position
        known from this process takes precedence.
        """
        after = self._handed.get(room_id, after)
        waiting = self._rooms.get(room_id)
        if through <= after:
            return
        if waiting is None:
            waiting = self._rooms[room_id] = _Waiting(after, False, now_ms)
        self._forget_entries(waiting)
        waiting.is_guess = False
        waiting.safe_ms = min(safe_ms, waiting.safe_ms)
        waiting.after = min(after, waiting.after)
        waiting.through = max(through, waiting.through)

    def _forget_entries(self, waiting: _Waiting) -> None:
        self._count -= len(waiting.entries)
        waiting.entries.clear()
        waiting.is_whole = False

    def take(self, is_ready: Callable[[str], bool]) -> list[EntrySpan]:
        """Return the next spans of ready rooms, longest-waiting first, up to 500 entries. They stay until `done`."""
        spans: list[EntrySpan] = []
        left = SPAN_MAX
        for room_id, waiting in self._rooms.items():
            if left == 0:
                break
            if not is_ready(room_id):
                continue
            through = min(waiting.through, waiting.after + left)
            some = waiting.entries[: through - waiting.after] if waiting.is_whole else None
            spans.append(EntrySpan(room_id, waiting.after, through, some))
            left -= through - waiting.after
        return spans

    def done(self, room_id: str, through: int) -> None:
        """Note that the entries of a room were handed over through a rev, unless the room was dropped meanwhile."""
        waiting = self._rooms.get(room_id)
        if waiting is None or through <= waiting.after:
            return
        if waiting.is_whole:
            done = min(through - waiting.after, len(waiting.entries))
            del waiting.entries[:done]
            self._count -= done
        waiting.after = through
        waiting.is_guess = False
        self._handed[room_id] = through
        self._handed.move_to_end(room_id)
        if through >= waiting.through:
            del self._rooms[room_id]
        elif not waiting.is_whole:
            self._rooms.move_to_end(room_id)  # a room far behind must not hold up the others
        while len(self._handed) > ROOMS_REMEMBERED_MAX:
            self._handed.popitem(last=False)

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        """Forget the rooms of partitions that another process owns now: it recovers them from their positions."""
        for room_id in [room_id for room_id in self._rooms if is_lost(room_id)]:
            self._forget_entries(self._rooms.pop(room_id))
        for room_id in [room_id for room_id in self._handed if is_lost(room_id)]:
            del self._handed[room_id]

    def oldest_ms(self, now_ms: int) -> int:
        """Return the time from which the longest-waiting room has waited; now if no room waits."""
        return min((waiting.since_ms for waiting in self._rooms.values()), default=now_ms)

    def checkpoint_ms(self, now_ms: int) -> int:
        """Return the latest checkpoint by which every waiting room would be found again."""
        return min((waiting.safe_ms for waiting in self._rooms.values()), default=now_ms)
