"""The entries that wait for one consumer, by room. Pure.

For each room the queue covers the revs after the last one handed over, through the last one offered. The entries that
the consumer wants are kept in memory while the queue has space; otherwise only the two revs are kept, and the log has
them. So a consumer that is far behind costs no memory, and reads the log again.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable

from chat_service.follower.backlog import ENTRIES_MAX, EntrySpan
from chat_service.rooms.log import LogEntry

SPAN_MAX = 500


class _QueuedRoom:
    """The waiting entries of one room.

    `since_ms` is when this process heard of the first. `safe_ms` is the latest checkpoint from which another owner
    would still find the room.
    """

    __slots__ = ("after", "entries", "is_whole", "safe_ms", "since_ms", "through")

    def __init__(self, after: int, since_ms: int, safe_ms: int) -> None:
        self.after = self.through = after
        self.is_whole = True
        self.since_ms, self.safe_ms = since_ms, safe_ms
        self.entries: list[LogEntry] = []


class ConsumerQueue:
    """Waiting entries.

    Bound: 5,000 in memory for this consumer (the objects are shared with the other queues); beyond that, two revs for
    each room.
    """

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._count = 0
        self._rooms: OrderedDict[str, _QueuedRoom] = OrderedDict()  # waiting for the longest time first

    def __len__(self) -> int:
        """Return the number of entries in memory."""
        return self._count

    @property
    def is_empty(self) -> bool:
        """Return whether no room waits."""
        return not self._rooms

    def has(self, room_id: str) -> bool:
        """Return whether a room waits."""
        return room_id in self._rooms

    def put(self, span: EntrySpan, safe_ms: int) -> None:
        """Add the next entries of a room: those that the consumer wants, or None to have them read from the log."""
        queued = self._rooms.get(span.room_id)
        if queued is None:
            queued = self._rooms[span.room_id] = _QueuedRoom(span.after, span.since_ms, safe_ms)
        is_next = queued.is_whole and queued.through == span.after
        if span.entries is not None and is_next and self._count + len(span.entries) <= self._entries_max:
            queued.entries += span.entries
            self._count += len(span.entries)
        else:
            self._forget_entries(queued)
        queued.after = min(queued.after, span.after)
        queued.through = max(queued.through, span.through)
        queued.safe_ms = min(queued.safe_ms, safe_ms)

    def _forget_entries(self, queued: _QueuedRoom) -> None:
        self._count -= len(queued.entries)
        queued.entries.clear()
        queued.is_whole = False

    def take(self, is_ready: Callable[[str], bool]) -> list[EntrySpan]:
        """Return the next spans of ready rooms, longest-waiting first, up to 500 entries. They stay until `done`."""
        spans: list[EntrySpan] = []
        left = SPAN_MAX
        for room_id, queued in self._rooms.items():
            if left <= 0:
                break
            if is_ready(room_id):
                span = _next_span(room_id, queued, left)
                spans.append(span)
                left -= span.through - span.after if span.entries is None else max(len(span.entries), 1)
        return spans

    def done(self, room_id: str, through: int) -> None:
        """Note that the entries of a room were handed over through a rev, unless the room was dropped meanwhile."""
        queued = self._rooms.get(room_id)
        if queued is None or through <= queued.after:
            return
        handed = bisect_right(queued.entries, through, key=_rev_of)
        del queued.entries[:handed]
        self._count -= handed
        queued.after = through
        if through >= queued.through:
            del self._rooms[room_id]
        elif not queued.is_whole:
            self._rooms.move_to_end(room_id)  # a room far behind must not hold up the others

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        """Forget the rooms of partitions that another process owns now: it recovers them from their positions."""
        for room_id in [room_id for room_id in self._rooms if is_lost(room_id)]:
            self._forget_entries(self._rooms.pop(room_id))

    def oldest_ms(self, now_ms: int) -> int:
        """Return the time at which the longest-waiting room began to wait; `now_ms` if none waits."""
        return min((queued.since_ms for queued in self._rooms.values()), default=now_ms)

    def checkpoint_ms(self, now_ms: int) -> int:
        """Return the latest time that a checkpoint may have so that a new owner still finds every waiting room."""
        return min((queued.safe_ms for queued in self._rooms.values()), default=now_ms)


def _next_span(room_id: str, queued: _QueuedRoom, count: int) -> EntrySpan:
    if not queued.is_whole:
        return EntrySpan(room_id, queued.after, min(queued.through, queued.after + count), queued.since_ms, None)
    some = queued.entries[:count]
    through = queued.through if len(some) == len(queued.entries) else some[-1].rev
    return EntrySpan(room_id, queued.after, through, queued.since_ms, some)


def _rev_of(entry: LogEntry) -> int:
    return entry.rev
