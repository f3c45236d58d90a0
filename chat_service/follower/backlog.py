"""The committed entries that were not offered to consumers yet, by room. Pure; the clock is an argument.

For each room the backlog covers the revs after the last one taken, through the newest one noted. The entries are kept
in memory while they are contiguous and the backlog has space; otherwise only the two revs are kept, and the log has the
entries.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from chat_service.rooms.log import LogEntry

ENTRIES_MAX = 5_000  # in memory: a second of the highest rate
ROOMS_REMEMBERED_MAX = 20_000


class EntrySpan(NamedTuple):
    """Entries of a room: `after` < rev ≤ `through`. `entries` is None if they have to be read from the log.

    `since_ms` is when this process heard of the first.
    """

    room_id: str
    after: int
    through: int
    since_ms: int
    entries: Sequence[LogEntry] | None


class _Noted:
    """The noted entries of one room.

    `is_guess`: `after` was inferred from the first entry noted, because no earlier one is remembered.
    """

    __slots__ = ("after", "entries", "is_guess", "is_whole", "since_ms", "through")

    def __init__(self, after: int, is_guess: bool, since_ms: int) -> None:
        self.after = self.through = after
        self.is_guess = is_guess
        self.is_whole = True
        self.since_ms = since_ms
        self.entries: list[LogEntry] = []


class Backlog:
    """Noted entries. Bound: 5,000 in memory; beyond that, entries are read from the log again.

    A room costs two numbers while it waits, and one afterwards, for the last 20,000 rooms. No entry is noted while the
    database is unavailable, because none is committed.
    """

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._count = 0
        self._rooms: dict[str, _Noted] = {}
        self._taken: OrderedDict[str, int] = OrderedDict()  # most recently taken last

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
        noted = self._rooms.get(entry.room_id)
        if noted is None:
            taken = self._taken.get(entry.room_id)
            if taken is not None and entry.rev <= taken:
                return
            after = entry.rev - 1 if taken is None else taken
            noted = self._rooms[entry.room_id] = _Noted(after, taken is None, now_ms)
        if entry.rev <= noted.after and noted.is_guess:
            self._forget_entries(noted)
            noted.after = entry.rev - 1
        if entry.rev <= noted.through:
            return
        is_next = noted.is_whole and entry.rev == noted.through + 1
        noted.through = entry.rev
        if is_next and self._count < self._entries_max:
            noted.entries.append(entry)
            self._count += 1
        else:
            self._forget_entries(noted)

    def _forget_entries(self, noted: _Noted) -> None:
        self._count -= len(noted.entries)
        noted.entries.clear()
        noted.is_whole = False

    def take(self, is_ready: Callable[[str], bool]) -> list[EntrySpan]:
        """Remove and return what was noted of ready rooms."""
        spans: list[EntrySpan] = []
        for room_id in [room_id for room_id in self._rooms if is_ready(room_id)]:
            noted = self._rooms.pop(room_id)
            self._count -= len(noted.entries)
            entries = noted.entries if noted.is_whole else None
            spans.append(EntrySpan(room_id, noted.after, noted.through, noted.since_ms, entries))
            self._remember(room_id, noted.through)
        return spans

    def skip(self, room_id: str, through: int) -> int | None:
        """Drop the noted entries of a room up to and including rev `through`.

        The caller has found them in the log and offers them itself. Return the last rev taken before; None if it is not
        known.
        """
        taken = self._taken.get(room_id)
        if taken is not None and taken >= through:
            return taken
        self._remember(room_id, through)
        noted = self._rooms.get(room_id)
        if noted is None:
            return taken
        if noted.is_whole and noted.after <= through:
            skipped = min(through - noted.after, len(noted.entries))
            del noted.entries[:skipped]
            self._count -= skipped
        else:
            self._forget_entries(noted)
        noted.after, noted.is_guess = through, False
        if noted.through <= through:
            del self._rooms[room_id]
        return taken

    def _remember(self, room_id: str, through: int) -> None:
        self._taken[room_id] = through
        self._taken.move_to_end(room_id)
        while len(self._taken) > ROOMS_REMEMBERED_MAX:
            self._taken.popitem(last=False)

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        """Forget the rooms of partitions that another process owns now: it recovers them from their positions."""
        for room_id in [room_id for room_id in self._rooms if is_lost(room_id)]:
            self._forget_entries(self._rooms.pop(room_id))
        for room_id in [room_id for room_id in self._taken if is_lost(room_id)]:
            del self._taken[room_id]

    def oldest_ms(self, now_ms: int) -> int:
        """Return the time at which the longest-waiting room began to wait; `now_ms` if none waits."""
        return min((noted.since_ms for noted in self._rooms.values()), default=now_ms)
