"""Entries of a room's log, as tests insert them."""

from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.message import Message
from shared.protocol.server_frames import UserProfile


def message_at(rev: int, id_: str, key: str | None = None, seq: int | None = None) -> LogEntry:
    """Return a message of ann in the room `r`."""
    message = Message(
        id=id_,
        room_id="r",
        seq=seq or rev,
        rev=rev,
        user_id="ann",
        user=UserProfile(),
        text="text",
        client_message_id=key,
        created_at_ms=1,
    )
    return LogEntry(
        id=id_,
        room_id="r",
        rev=rev,
        kind=EntryKind.MESSAGE,
        term=1,
        author_id="ann",
        at_ms=1,
        last_seq=seq or rev,
        member_count=1,
        message=message,
    )
