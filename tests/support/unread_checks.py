"""Checks of unread counts as they are read against the logs that they follow from."""

from collections.abc import Callable, Mapping, Sequence

from chat_service.rooms.changes import message_after
from chat_service.rooms.log import LogEntry, apply
from chat_service.rooms.mention_marks import ROOM, mentioned
from chat_service.rooms.message import Message
from chat_service.rooms.room import Room
from chat_service.storage.documents import member_key
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.room_store import RoomStore
from chat_service.unread import UnreadReader
from shared.mongo import Database


async def check_unread(
    database: Database, clock_ms: Callable[[], int], logs: Mapping[str, Sequence[LogEntry]], *, is_repaired: bool
) -> None:
    """Check the counts of every user, also while the records lack what an owner stored before it died."""
    rooms = RoomStore(database)
    reader = UnreadReader(rooms, MessageStore(database), LogStore(database), clock_ms)
    for room_id, log in logs.items():
        room = room_after(log)
        for user_id in {effect.user_id for entry in log for effect in entry.members}:
            found = [count for count in await reader.of_user(user_id) if count.room_id == room_id]
            assert found == [count for count in await reader.of_pairs([(room_id, user_id)]) if count.user_id == user_id]
            is_joined = [effect for entry in log for effect in entry.members if effect.user_id == user_id][-1].is_joined
            is_member = is_joined and room is not None and not room.deleted
            assert len(found) <= is_member
            if not is_member or room is None:
                continue
            stored = await database["room_members"].find_one({"_id": member_key(room_id, user_id)})
            if not found:
                assert not is_repaired and not (stored or {}).get("active")
                continue
            [count] = found
            mark = max(
                (stored or {})["readSeq"],
                *(entry.last_seq for entry in log if entry.message is not None and entry.author_id == user_id),
                *(effect.read_seq for entry in log for effect in entry.members if effect.user_id == user_id),
            )
            assert (count.seq, count.unread_count) == (room.last_seq, room.last_seq - mark)
            assert count.mention_count == sum(
                not {user_id, ROOM}.isdisjoint(mentioned(message.extras))
                for message in messages_after(log)
                if message.seq > mark
            )


def room_after(log: Sequence[LogEntry]) -> Room | None:
    """Return the room after all entries of its log."""
    room: Room | None = None
    for entry in log:
        room = apply(entry, room)
    return room


def messages_after(log: Sequence[LogEntry]) -> list[Message]:
    """Return the messages of a room after all entries of its log."""
    messages: dict[str, Message] = {}
    for entry in log:
        if entry.message is not None:
            messages[entry.id] = entry.message
        if (change := entry.change) is not None:
            messages[change.message_id] = message_after(
                messages[change.message_id], change, by=entry.author_id, at_ms=entry.at_ms, rev=entry.rev
            )
    return list(messages.values())
