"""The recipients of an entry's mention notifications, and the events for notifier. Pure.

The id of an event is derived from message and user, so notifier drops repeats; a mention of all members is one event.
"""

from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import quote

from chat_service.rooms.changes import Edit
from chat_service.rooms.log import LogEntry
from chat_service.rooms.mention_marks import ROOM
from chat_service.rooms.message import Message
from shared.bus.events import NOTIFICATION_CREATED, event_key_of
from shared.encoding import to_json
from shared.protocol.message_parts import EXCERPT_MAX
from shared.times import to_iso

EVENT_SOURCE = "realtime/mentions"
NOTIFIED_MEMBERS_MAX = 1_000  # of a room; in a larger one, a mention of all members is only shown and counted


class Mentioning(NamedTuple):
    """The recipients of a message's mention notifications: `users`, and all members if `of_room`."""

    message_id: str
    room_id: str
    author_id: str
    users: tuple[str, ...]
    of_room: bool
    at_ms: int


def mentioning_of(entry: LogEntry) -> Mentioning | None:
    """Return the recipients of an entry; None for almost every entry. An edit notifies newly mentioned users only."""
    if (message := entry.message) is not None:
        if not entry.mentions_somebody:
            return None
        of_room = message.extras.mention_room and entry.member_count <= NOTIFIED_MEMBERS_MAX
        return Mentioning(message.id, entry.room_id, message.user_id, message.extras.mentions, of_room, entry.at_ms)
    match entry.change:
        case Edit(newly_mentioned=users) as change if users:
            return Mentioning(change.message_id, entry.room_id, entry.author_id, users, False, entry.at_ms)
    return None


def event_id(message_id: str, user_id: str) -> str:
    """Return the id of the event that notifies a user, or `ROOM`, of a message."""
    return f"{message_id}/{user_id}"


def notice_key(message_id: str, user_id: str) -> str:
    """Return the key under which notifier keeps the content of that event."""
    return event_key_of(EVENT_SOURCE, event_id(message_id, user_id))


def user_event(message: Message, user_id: str) -> bytes:
    """Return the event that notifies one user."""
    return _event(message, user_id, f"user:{user_id}")


def room_event(message: Message, user_ids: Collection[str]) -> bytes:
    """Return the event that notifies these members of a mention of all."""
    return _event(message, ROOM, "users:" + ",".join(quote(user_id, safe="") for user_id in user_ids))


def _event(message: Message, to: str, audience: str) -> bytes:
    name = f"{message.user.first_name} {message.user.last_name}".strip() or message.user_id
    data = {
        "title": f"{name} mentioned everyone" if to == ROOM else f"{name} mentioned you",
        "message": message.text[:EXCERPT_MAX],
        "priority": "medium",
        "type": "mention",
        "chatroomId": message.room_id,
        "messageId": message.id,
        "userId": message.user_id,
    }
    return to_json(
        {
            "specversion": "1.0",
            "id": event_id(message.id, to),
            "source": EVENT_SOURCE,
            "type": NOTIFICATION_CREATED,
            "time": to_iso(message.edited_at_ms or message.created_at_ms),
            "audience": audience,
            "data": data,
        }
    )
