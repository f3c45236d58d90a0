"""The client frames of changes of messages, live and replayed. Pure.

Live, a frame shows the change. A replay shows the current state: an edit shows the current text, reactions the current
counts. If the message has been deleted since, only the deletion is shown.
"""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET

from chat_service.rooms.changes import AnyChange, Edit, Erasure, Pin, Reactions, message_after
from chat_service.rooms.log import LogEntry
from chat_service.rooms.message import Message, previewed
from shared.protocol.message_frames import (
    CHANGES_SHOWN_MAX,
    ChatDeletedData,
    ChatPinnedData,
    ChatReactionData,
    ChatUpdatedData,
)
from shared.protocol.server_frames import frame
from shared.times import to_iso


def change_frame(entry: LogEntry, change: AnyChange) -> bytes:
    """Return the frame of a change, as the entry has it."""
    room_id, rev, by = entry.room_id, entry.rev, entry.author_id
    at = to_iso(entry.at_ms)
    match change:
        case Edit():
            edited = ChatUpdatedData(
                chatroom_id=room_id,
                rev=rev,
                message_id=change.message_id,
                user_id=by,
                message=change.text,
                edited_at=at,
                mentions=change.mentions or UNSET,
            )
            return frame("chat:updated", edited)
        case Erasure():
            deleted = ChatDeletedData(
                chatroom_id=room_id, rev=rev, message_id=change.message_id, deleted_by=by, deleted_at=at
            )
            return frame("chat:deleted", deleted)
        case Reactions():
            reacted = ChatReactionData(
                chatroom_id=room_id,
                rev=rev,
                message_id=change.message_id,
                reactions=change.counts,
                changes=change.changes if len(change.changes) <= CHANGES_SHOWN_MAX else UNSET,
            )
            return frame("chat:reaction", reacted)
        case Pin():
            pinned = ChatPinnedData(
                chatroom_id=room_id, rev=rev, message_id=change.message_id, pinned=change.is_pinned, user_id=by
            )
            return frame("chat:pinned", pinned)


def current_after(entries: Sequence[LogEntry], messages: Mapping[str, Message]) -> list[LogEntry]:
    """Apply all these entries to `messages`, and return the entries, oldest first, as a replay then shows them."""
    now = dict(messages)
    for entry in entries:
        message = None if entry.change is None else now.get(entry.change.message_id)
        if entry.change is not None and message is not None and not message.is_deleted:
            now[message.id] = message_after(message, entry.change, by=entry.author_id, at_ms=entry.at_ms, rev=entry.rev)
    return [as_current(entry, now) for entry in entries]


def as_current(entry: LogEntry, messages: Mapping[str, Message]) -> LogEntry:
    """Return an entry as a replay shows it, without its change if a replay no longer shows that.

    `messages` holds the messages that it changes or replies to, in their current state.
    """
    change = entry.change
    if entry.message is not None and entry.message.preview is not None:
        return msgspec.structs.replace(entry, message=previewed([entry.message], messages)[0])
    if change is None or isinstance(change, Erasure):
        return entry
    message = messages.get(change.message_id)
    if message is None or message.is_deleted:
        return msgspec.structs.replace(entry, change=None)
    match change:
        case Edit():
            now = msgspec.structs.replace(change, text=message.text, mentions=message.extras.mentions)
            return msgspec.structs.replace(entry, change=now, at_ms=message.edited_at_ms or entry.at_ms)
        case Reactions():
            return msgspec.structs.replace(entry, change=msgspec.structs.replace(change, counts=message.reactions))
        case Pin():
            return entry
