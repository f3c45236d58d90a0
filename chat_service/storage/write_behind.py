"""Write-behind of the changes that plain messages make to records of rooms and senders. Pure; the clock is an argument.

A message moves the last seq and time of its room, and the read mark of its sender. These fields are written seconds
later, once per room instead of once per message. That is safe: they only grow, each write is idempotent, a reader adds
the entries beyond a record (`catch_up`), and a new owner completes the records of a killed one from the log (`repair`).
Only the list of recently active rooms cannot be queried from the log, so the first message in a quiet room marks its
record as active at once. Writing records with every batch instead would cost 0.25 ms of database time per record, and
two database calls per batch (measured).
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from chat_service.rooms.log import LogEntry
from chat_service.rooms.room import Member, Room

DELAY_MS = 5_000
MARKED_FOR_MS = 30_000  # a record marked as active within this time need not be marked again
BEHIND_MAX_MS = 60_000  # a record last active longer ago is complete; must exceed MARKED_FOR_MS + DELAY_MS
ROOMS_MAX = 200


class MessagePlace(NamedTuple):
    """The place of a stored message in its room, which the records of the room and the sender follow."""

    room_id: str
    rev: int
    seq: int
    user_id: str
    created_at_ms: int


class _Unwritten:
    """The place of a room's newest unwritten message, and the unwritten read marks of its senders."""

    __slots__ = ("due_at_ms", "marks", "newest")

    def __init__(self, place: MessagePlace, due_at_ms: int) -> None:
        self.newest = place
        self.due_at_ms = due_at_ms
        self.marks: dict[str, int] = {}

    def add(self, place: MessagePlace) -> None:
        if place.rev > self.newest.rev:
            self.newest = place
        self.marks[place.user_id] = max(place.seq, self.marks.get(place.user_id, 0))


class WriteBehind:
    """Unwritten changes. Bound: those of some seconds, and the rooms of the last half minute.

    This does not grow during an outage: no message is stored while the database is unavailable.
    """

    def __init__(self) -> None:
        self._rooms: dict[str, _Unwritten] = {}  # first to become due first
        self._marked_at_ms: OrderedDict[str, int] = OrderedDict()  # oldest first

    def note(self, entries: Iterable[LogEntry], now_ms: int) -> None:
        """Take stored entries, except those of a room in which one of them has effects.

        The record of that room is written whole. If the newest message were written here before it, the record would
        carry the rev of the effects without the effects, and the whole record would then be refused as outdated.
        """
        entries = list(entries)
        whole = {entry.room_id for entry in entries if entry.has_effects}
        for entry in entries:
            if (message := entry.message) is not None and entry.room_id not in whole:
                self.add(MessagePlace(entry.room_id, entry.rev, message.seq, message.user_id, entry.at_ms), now_ms)

    def add(self, place: MessagePlace, now_ms: int) -> None:
        """Take a stored message."""
        unwritten = self._rooms.get(place.room_id)
        if unwritten is None:
            unwritten = self._rooms[place.room_id] = _Unwritten(place, now_ms + DELAY_MS)
        unwritten.add(place)

    def claim_unmarked(self, room_ids: Iterable[str], now_ms: int) -> set[str]:
        """Return the rooms not marked as active in the last 30 s, and note that the caller marks them now."""
        while self._marked_at_ms and next(iter(self._marked_at_ms.values())) <= now_ms - MARKED_FOR_MS:
            self._marked_at_ms.popitem(last=False)
        unmarked = {room_id for room_id in room_ids if room_id not in self._marked_at_ms}
        for room_id in unmarked:
            self._marked_at_ms[room_id] = now_ms
        return unmarked

    def release_claims(self, room_ids: Iterable[str]) -> None:
        """Note that the records of these rooms could not be marked."""
        for room_id in room_ids:
            self._marked_at_ms.pop(room_id, None)

    def rooms(self) -> set[str]:
        """Return every room with unwritten fields."""
        return set(self._rooms)

    def due(self, now_ms: int) -> list[str]:
        """Return at most 200 rooms with a change that is 5 s old."""
        due: list[str] = []
        for room_id, unwritten in self._rooms.items():
            if unwritten.due_at_ms > now_ms or len(due) == ROOMS_MAX:
                break
            due.append(room_id)
        return due

    def take(self, room_ids: Iterable[str]) -> tuple[list[MessagePlace], dict[tuple[str, str], int]]:
        """Remove and return the newest places of these rooms, and the read marks by (room id, user id).

        Write the marks first: a reader adds to a stored mark only the messages beyond the record's rev, so a newer
        record would leave the mark outdated. `put_back` those that were not written.
        """
        places: list[MessagePlace] = []
        marks: dict[tuple[str, str], int] = {}
        for room_id in room_ids:
            if (unwritten := self._rooms.pop(room_id, None)) is not None:
                places.append(unwritten.newest)
                marks |= {(room_id, user_id): seq for user_id, seq in unwritten.marks.items()}
        return places, marks

    def put_back(self, places: Iterable[MessagePlace], marks: dict[tuple[str, str], int], now_ms: int) -> None:
        """Take back changes that could not be written."""
        for place in places:
            self.add(place, now_ms)
        for (room_id, user_id), seq in marks.items():
            kept = self._rooms[room_id].marks
            kept[user_id] = max(seq, kept.get(user_id, 0))


def may_be_behind(room: Room, now_ms: int) -> bool:
    """Return whether a record, as read, may lack the newest messages."""
    return room.active_at_ms > now_ms - BEHIND_MAX_MS


def catch_up(room: Room, member: Member | None, beyond: Iterable[MessagePlace]) -> None:
    """Bring a room, and the membership of one user, up to date with the messages beyond the room's record."""
    for place in beyond:
        if place.rev > room.rev:
            room.rev = place.rev
            room.last_seq = place.seq
            room.last_message_at_ms = room.active_at_ms = place.created_at_ms
        if member is not None and member.user_id == place.user_id:
            member.read_seq = max(member.read_seq, place.seq)
