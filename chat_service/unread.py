"""Unread messages and mentions of members, exact even if the records lag behind the log.

    records of rooms → the log beyond them → memberships → mentions, by bucket → memberships again

The order matters. An owner writes memberships, mentions and read marks before the record, so data read after a record
is never older than the record; the log has later changes. Memberships are read once more, so that nobody sees the head
of a room after a removal.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from chat_service.people.notify_rules import NotificationKind, may_be_notified
from chat_service.rooms.mention_marks import ROOM, MentionMark, marks_of, with_marks
from chat_service.rooms.room import Member, Room
from chat_service.storage.change_writes import bucket_key, bucket_of
from chat_service.storage.documents import NewerDocument
from chat_service.storage.group_read import GroupRead
from chat_service.storage.log_store import LogStore, LogTail
from chat_service.storage.message_store import MessageStore
from chat_service.storage.room_store import RoomStore
from chat_service.storage.write_behind import catch_up, may_be_behind
from shared.commands.activity import RoomUnread
from shared.mongo import chunks
from shared.telemetry import logs

log = logs.get(__name__)

TAILS_AT_ONCE = 50
Pair = tuple[str, str]  # room id, user id


class CurrentRoom(NamedTuple):
    """A room brought up to its newest message.

    `tail` is the part of its log that its record lacks, and `marks` are the mention marks in that part.
    """

    room: Room
    tail: LogTail
    marks: tuple[MentionMark, ...]


NOTHING = LogTail([], [])


class UnreadReader:
    """Reads unread counts. Methods raise Unavailable.

    Callers that arrive during a read of heads share the next one, so a thousand members who connect at the same time
    cost one read of their common rooms. Mentions cost two keys (the user's and the room's) for every block of 5,000
    messages that holds unread ones.
    """

    def __init__(
        self, rooms: RoomStore, messages: MessageStore, room_log: LogStore, clock_ms: Callable[[], int]
    ) -> None:
        self._rooms = rooms
        self._messages = messages
        self._log = room_log
        self._clock_ms = clock_ms
        self._heads: GroupRead[str, CurrentRoom] = GroupRead(self._read_heads)

    async def of_user(self, user_id: str) -> list[RoomUnread]:
        """Return the counts of all rooms that a user is a member of."""
        room_ids = await self._rooms.room_ids_of(user_id)
        counts = await self._counts([(room_id, user_id) for room_id in room_ids])
        joined = set(await self._rooms.room_ids_of(user_id))
        return [count for count in counts if count.room_id in joined]

    async def of_pairs(self, pairs: Collection[Pair]) -> list[RoomUnread]:
        """Return the counts of users in rooms; non-members are left out."""
        counts = await self._counts(pairs)
        members = await self._rooms.members([(count.room_id, count.user_id) for count in counts])
        joined = {pair for pair, member in members.items() if member.is_joined}
        return [count for count in counts if (count.room_id, count.user_id) in joined]

    async def _counts(self, pairs: Collection[Pair]) -> list[RoomUnread]:
        if not pairs:
            return []
        heads = await self._heads.get({room_id for room_id, _ in pairs})
        members = await self._rooms.members(pairs)
        joined: list[tuple[CurrentRoom, Member]] = []
        for (room_id, _), member in members.items():
            head = heads.get(room_id)
            if head is None or head.room.deleted or not may_be_notified(NotificationKind.BADGE, member.user_id):
                continue
            if _catch_up(head, member):
                joined.append((head, member))
        keys = (key for head, member in joined for key in _bucket_keys(head, member, member.user_id, ROOM))
        mentions = await self._messages.mentions(set(keys))
        return [_count(head, member, mentions) for head, member in joined]

    async def _read_heads(self, room_ids: Collection[str]) -> Mapping[str, CurrentRoom]:
        rooms = await self._rooms.rooms(room_ids)
        now_ms = self._clock_ms()
        recent = [room for room in rooms.values() if may_be_behind(room, now_ms)]
        tails: dict[str, LogTail] = {}
        for some in chunks(recent, TAILS_AT_ONCE):
            read = await asyncio.gather(*map(self._tail_of, some))
            tails |= {room.id: tail for room, tail in zip(some, read, strict=True)}
        return {room_id: _head(room, tails.get(room_id, NOTHING)) for room_id, room in rooms.items()}

    async def _tail_of(self, room: Room) -> LogTail:
        try:
            return await self._log.tail(room.id, room.rev)
        except NewerDocument as error:  # the others share this read
            log.error("room_not_readable", room_id=room.id, reason=str(error))
            return NOTHING


def _head(room: Room, tail: LogTail) -> CurrentRoom:
    catch_up(room, None, tail.places)
    for entry in tail.changing:
        room.rev = max(room.rev, entry.rev)
    return CurrentRoom(room, tail, tuple(mark for entry in tail.changing for mark in marks_of(entry)))


def _catch_up(head: CurrentRoom, member: Member) -> bool:
    """Bring a membership up to date with the log beyond the record. Return whether the user is a member."""
    for entry in head.tail.changing:
        for effect in entry.members:
            if effect.user_id == member.user_id:
                member.is_joined = effect.is_joined
                member.read_seq = max(member.read_seq, effect.read_seq)
    catch_up(head.room, member, head.tail.places)
    return member.is_joined


def _bucket_keys(head: CurrentRoom, member: Member, *mentioned: str) -> list[str]:
    """Return the keys of the mentions of these users, or of `ROOM`, in the buckets with a member's unread messages."""
    if head.room.last_seq <= member.read_seq:
        return []
    numbers = range(bucket_of(member.read_seq + 1), bucket_of(head.room.last_seq) + 1)
    return [bucket_key(head.room.id, user_id, number) for number in numbers for user_id in mentioned]


def _count(head: CurrentRoom, member: Member, mentions: Mapping[str, Sequence[int]]) -> RoomUnread:
    room = head.room
    unread: set[int] = set()
    for user_id in (member.user_id, ROOM):
        stored = (seq for key in _bucket_keys(head, member, user_id) for seq in mentions.get(key, ()))
        unread |= {seq for seq in with_marks(stored, user_id, head.marks) if member.read_seq < seq <= room.last_seq}
    return RoomUnread(
        room_id=room.id,
        user_id=member.user_id,
        rev=room.rev,
        seq=room.last_seq,
        read_seq=member.read_seq,
        mention_count=len(unread),
        last_message_at_ms=room.last_message_at_ms,
        is_direct=room.direct is not None,
    )
