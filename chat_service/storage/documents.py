"""Log entries, room records and memberships as MongoDB documents, and back. Pure.

Knows the fields of the collections, not the driver. Times are integers, milliseconds since 1970.
"""

from hashlib import blake2b
from typing import Any

import msgspec

from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect, RoomSettings
from chat_service.rooms.room import Member, Role, Room, RoomType, words_of
from chat_service.storage.message_documents import change_fields, extras_fields, to_change, to_message
from chat_service.storage.write_behind import MessagePlace
from shared.errors import Unavailable
from shared.protocol.server_frames import UserProfile

Document = dict[str, Any]

_UNREADABLE = (ValueError, KeyError, msgspec.ValidationError)


def member_key(room_id: str, user_id: str) -> str:
    """Return the `_id` of a membership. Injective: a room id contains no slash."""
    return f"{room_id}/{user_id}"


def sent_as(room_id: str, user_id: str, client_message_id: str) -> bytes:
    """Return the digest that makes a clientMessageId unique for its room and sender: 16 bytes for any length."""
    return blake2b(old_sent_as(room_id, user_id, client_message_id).encode(), digest_size=16).digest()


def old_sent_as(room_id: str, user_id: str, client_message_id: str) -> str:
    """Return the text that versions before the log stored in place of the digest.

    Injective: a slash in the user id is escaped. Ids stored before `/` and `%` were allowed keep their key.
    """
    escaped = user_id.replace("%", "%25").replace("/", "%2F")
    return f"{room_id}/{escaped}/{client_message_id}"


# The log ------------------------------------------------------------------------------------------------------------


def from_entry(entry: LogEntry) -> Document:
    """Return the document of an entry. A message is stored flat in it, for the indexes on `seq` and `sentAs`."""
    document: Document = {
        "_id": entry.id,
        "roomId": entry.room_id,
        "rev": entry.rev,
        "kind": entry.kind.value,
        "term": entry.term,
        "userId": entry.author_id,
        "atMs": entry.at_ms,
        "lastSeq": entry.last_seq,
        "memberCount": entry.member_count,
    }
    if (message := entry.message) is not None:
        document["seq"] = message.seq
        document["user"] = msgspec.to_builtins(message.user)
        document["text"] = message.text
        if message.client_message_id is not None:
            document["clientMessageId"] = message.client_message_id
            document["sentAs"] = sent_as(entry.room_id, message.user_id, message.client_message_id)
        document |= extras_fields(message)
    if entry.change is not None:
        document |= change_fields(entry.change)
    if entry.settings is not None:
        document["settings"] = msgspec.to_builtins(entry.settings)
    if entry.members:
        document["members"] = [msgspec.to_builtins(effect) for effect in entry.members]
    if entry.ends_public:
        document["endsPublic"] = True
    if entry.previous_at_ms:
        document["previousAtMs"] = entry.previous_at_ms
    return document


class NewerDocument(Unavailable):
    """A newer release wrote this document, and this one cannot read it. Its room waits for a process that can."""

    def __init__(self, kind: str, rev: int, room_id: str) -> None:
        super().__init__(f"{kind} {rev} of room {room_id} was written by a newer release")
        self.room_id = room_id


def to_entry(document: Document) -> LogEntry:
    """Return the entry of a document. Raises NewerDocument."""
    try:
        return _to_entry(document)
    except _UNREADABLE as error:
        raise NewerDocument("entry", document.get("rev", 0), document["roomId"]) from error


def _to_entry(document: Document) -> LogEntry:
    settings = document.get("settings")
    return LogEntry(
        id=document["_id"],
        room_id=document["roomId"],
        rev=document["rev"],
        kind=EntryKind(document["kind"]),
        term=document["term"],
        author_id=document["userId"],
        at_ms=document["atMs"],
        last_seq=document["lastSeq"],
        member_count=document["memberCount"],
        message=to_message(document) if "seq" in document else None,
        change=to_change(document),
        settings=None if settings is None else msgspec.convert(settings, RoomSettings),
        members=tuple(msgspec.convert(effect, MemberEffect) for effect in document.get("members", ())),
        ends_public=document.get("endsPublic", False),
        previous_at_ms=document.get("previousAtMs", 0),
    )


def to_place(document: Document) -> MessagePlace:
    """Return the changes that a message makes to its room's record."""
    return MessagePlace(document["roomId"], document["rev"], document["seq"], document["userId"], document["atMs"])


# Projections --------------------------------------------------------------------------------------------------------


def progress_of(place: MessagePlace) -> Document:
    """Return the fields of a room's record that a message changes."""
    return {
        "rev": place.rev,
        "lastSeq": place.seq,
        "lastMessageAtMs": place.created_at_ms,
        "activeAtMs": place.created_at_ms,
    }


def is_content_erased(document: Document) -> bool:
    """Return whether the first step of a deleted room's purge is done; only the second has a due time above 0."""
    return bool(document["purgeDueMs"] > 0)


def from_room(room: Room) -> Document:
    """Return the record of a room; the first step of a deleted room's purge is due at once."""
    purge = {"purgeDueMs": 0} if room.deleted else {}
    old = {"oldSeq": room.old_seq} if room.old_seq else {}
    return {
        **purge,
        **old,
        "_id": room.id,
        "rev": room.rev,
        "changedRev": room.changed_rev,
        "changedAtMs": room.changed_at_ms,
        "name": room.name,
        "words": words_of(room.name),
        "description": room.description,
        "type": room.type.value,
        "createdBy": room.created_by,
        "creatorId": room.creator_id,
        "createdAtMs": room.created_at_ms,
        "direct": list(room.direct) if room.direct else None,
        "lastSeq": room.last_seq,
        "lastMessageAtMs": room.last_message_at_ms,
        "activeAtMs": room.active_at_ms,
        "memberCount": room.member_count,
        "deleted": room.deleted,
    }


def to_room(document: Document) -> Room:
    """Return the room of a record. Raises NewerDocument."""
    try:
        return _to_room(document)
    except _UNREADABLE as error:
        raise NewerDocument("record", document.get("rev", 0), document["_id"]) from error


def _to_room(document: Document) -> Room:
    direct = document["direct"]
    return Room(
        id=document["_id"],
        rev=document["rev"],
        changed_rev=document.get("changedRev", 0),
        changed_at_ms=document.get("changedAtMs", 0),
        name=document["name"],
        description=document["description"],
        type=RoomType(document["type"]),
        created_by=document["createdBy"],
        creator_id=document.get("creatorId", document["createdBy"]),  # earlier versions stored none
        created_at_ms=document["createdAtMs"],
        active_at_ms=document["activeAtMs"],
        direct=(direct[0], direct[1]) if direct else None,
        last_seq=document["lastSeq"],
        last_message_at_ms=document["lastMessageAtMs"],
        member_count=document["memberCount"],
        old_seq=document.get("oldSeq", 0),
        deleted=document["deleted"],
    )


def from_effect(room_id: str, effect: MemberEffect, rev: int) -> Document:
    """Return the fields of a membership after entry `rev`, except the read mark, which only grows."""
    return {
        "rev": rev,
        "roomId": room_id,
        "userId": effect.user_id,
        "active": effect.is_joined,
        "invited": effect.is_invited,
        "role": effect.role.value,
        "joinedAtMs": effect.joined_at_ms,
        "roleSinceMs": effect.role_since_ms or effect.joined_at_ms,
        "profile": msgspec.to_builtins(effect.profile),
    }


def to_member(document: Document) -> Member:
    """Return the member of a membership's document. Raises NewerDocument."""
    try:
        return Member(
            room_id=document["roomId"],
            user_id=document["userId"],
            role=Role(document["role"]),
            joined_at_ms=document["joinedAtMs"],
            role_since_ms=document.get("roleSinceMs") or document["joinedAtMs"],
            read_seq=document["readSeq"],
            profile=_to_profile(document["profile"]),
            is_joined=document["active"],
        )
    except _UNREADABLE as error:
        raise NewerDocument("membership", document.get("rev", 0), document["roomId"]) from error


# Documents of 0.2 ---------------------------------------------------------------------------------------------------


def to_old_room(document: Document) -> Room:
    """Return the room of a record in the collection `rooms`, which versions before the log wrote."""
    return to_room({**document, "rev": 0})


def from_old_member(document: Document) -> tuple[str, Document]:
    """Return `_id` and document of a membership from the collection `members`, whose users may all come back."""
    kept = ("roomId", "userId", "active", "role", "joinedAtMs", "readSeq", "profile")
    fields = {name: document[name] for name in kept}
    online = document.get("online", False)
    return member_key(document["roomId"], document["userId"]), {**fields, "rev": 0, "invited": True, "online": online}


def _to_profile(document: Document) -> UserProfile:
    return msgspec.convert(document, UserProfile)
