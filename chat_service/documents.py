"""Rooms, messages and memberships as MongoDB documents, and back.

Knows the fields of the collections, not the driver.
"""

from typing import Any

import msgspec

from chat_service.messages import Message
from chat_service.rooms import Member, Role, Room, RoomType, words_of
from chat_service.write_behind import Post
from shared.protocol.server_frames import UserProfile

Document = dict[str, Any]


def member_key(room_id: str, user_id: str) -> str:
    """Return the `_id` of a membership; ids contain no slash."""
    return f"{room_id}/{user_id}"


def sent_as(room_id: str, user_id: str, client_message_id: str) -> str:
    """Return the unique key of a message with a clientMessageId: one field, so that one `$in` finds many."""
    return f"{room_id}/{user_id}/{client_message_id}"


def to_post(room: Room, document: Document) -> Post:
    """Read a message of `room` as a post."""
    return Post(room.id, document["seq"], document["userId"], document["createdAtMs"])


def progress_of(post: Post) -> Document:
    """Return the fields of a room that follow from its newest message."""
    return {"lastSeq": post.seq, "lastMessageAtMs": post.created_at_ms, "activeAtMs": post.created_at_ms}


def to_member(document: Document) -> Member:
    """Read a membership."""
    return Member(
        room_id=document["roomId"],
        user_id=document["userId"],
        role=Role(document["role"]),
        joined_at_ms=document["joinedAtMs"],
        read_seq=document["readSeq"],
        profile=_to_profile(document["profile"]),
        active=document["active"],
    )


def from_room(room: Room) -> Document:
    """Write a room."""
    return {
        "_id": room.id,
        "name": room.name,
        "words": words_of(room.name),
        "description": room.description,
        "type": room.type.value,
        "createdBy": room.created_by,
        "createdAtMs": room.created_at_ms,
        "direct": list(room.direct) if room.direct else None,
        "lastSeq": room.last_seq,
        "lastMessageAtMs": room.last_message_at_ms,
        "activeAtMs": room.active_at_ms,
        "memberCount": room.member_count,
        "version": room.version,
        "deleted": room.deleted,
    }


def to_room(document: Document) -> Room:
    """Read a room."""
    direct = document["direct"]
    return Room(
        id=document["_id"],
        name=document["name"],
        description=document["description"],
        type=RoomType(document["type"]),
        created_by=document["createdBy"],
        created_at_ms=document["createdAtMs"],
        active_at_ms=document["activeAtMs"],
        direct=(direct[0], direct[1]) if direct else None,
        last_seq=document["lastSeq"],
        last_message_at_ms=document["lastMessageAtMs"],
        member_count=document["memberCount"],
        version=document["version"],
        deleted=document["deleted"],
    )


def from_message(message: Message) -> Document:
    """Write a message."""
    document: Document = {
        "_id": message.id,
        "roomId": message.room_id,
        "seq": message.seq,
        "userId": message.user_id,
        "user": msgspec.to_builtins(message.user),
        "text": message.text,
        "createdAtMs": message.created_at_ms,
    }
    if message.client_message_id is not None:
        document["clientMessageId"] = message.client_message_id
        document["sentAs"] = sent_as(message.room_id, message.user_id, message.client_message_id)
    return document


def to_message(document: Document) -> Message:
    """Read a message."""
    return Message(
        id=document["_id"],
        room_id=document["roomId"],
        seq=document["seq"],
        user_id=document["userId"],
        user=_to_profile(document["user"]),
        text=document["text"],
        client_message_id=document.get("clientMessageId"),
        created_at_ms=document["createdAtMs"],
    )


def _to_profile(document: Document) -> UserProfile:
    return msgspec.convert(document, UserProfile)
