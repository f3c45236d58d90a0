"""The recipients of an entry's notifications, and the events."""

import json

import msgspec

from chat_service.mentions.mention_events import (
    NOTIFIED_MEMBERS_MAX,
    Mentioning,
    mentioning_of,
    notice_key,
    room_event,
    user_event,
)
from chat_service.rooms.changes import Edit
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.message import Message
from shared.bus.events import decode_event, event_key
from shared.protocol.message_parts import MessageExtras
from shared.protocol.server_frames import UserProfile
from tests.support.log_entries import message_at


def mentioning(extras: MessageExtras, members: int = 3) -> LogEntry:
    entry = message_at(4, "msg_1")
    assert entry.message is not None
    message = msgspec.structs.replace(entry.message, extras=extras)
    return msgspec.structs.replace(entry, message=message, member_count=members)


def a_message(**fields: object) -> Message:
    message = message_at(4, "msg_1").message
    assert message is not None
    return msgspec.structs.replace(message, **fields)


def test_message_notifies_mentioned_users_and_small_rooms() -> None:
    named = mentioning(MessageExtras(mentions=("ben",), mention_room=True))
    assert mentioning_of(named) == Mentioning("msg_1", "r", "ann", ("ben",), True, 1)
    large = mentioning(MessageExtras(mention_room=True), NOTIFIED_MEMBERS_MAX + 1)
    assert mentioning_of(large) == Mentioning("msg_1", "r", "ann", (), False, 1)
    assert mentioning_of(message_at(4, "msg_1")) is None


def test_edit_notifies_newly_mentioned_users_only() -> None:
    edited = msgspec.structs.replace(
        message_at(5, "cmd_2"),
        kind=EntryKind.EDITED,
        message=None,
        change=Edit(message_id="msg_1", seq=4, text="x", mentions=("ben", "cat"), newly_mentioned=("cat",)),
    )
    assert mentioning_of(edited) == Mentioning("msg_1", "r", "ann", ("cat",), False, 1)


def test_event_shows_the_first_200_characters_under_a_key_of_message_and_user() -> None:
    message = a_message(text="é" * 300, user=UserProfile(first_name="Ann"))
    event = decode_event(user_event(message, "b,n"))
    assert (event.audience, event_key(event)) == ("user:b,n", notice_key("msg_1", "b,n"))
    assert event.data == {
        "title": "Ann mentioned you",
        "message": "é" * 200,
        "priority": "medium",
        "type": "mention",
        "chatroomId": "r",
        "messageId": "msg_1",
        "userId": "ann",
    }
    everyone = json.loads(room_event(message, ["b,n", "cat"]))
    assert (everyone["audience"], everyone["data"]["title"]) == ("users:b%2Cn,cat", "Ann mentioned everyone")
    assert event_key(decode_event(room_event(message, ["cat"]))) == notice_key("msg_1", "")
