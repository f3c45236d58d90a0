"""Messages and their changes as parts of the documents of entries, and back. Pure.

A message is stored flat in the document of its own entry, in its current state; `shown` is the rev of the last change
written into it. The documents of later changes hold the change alone.
"""

from typing import Any

import msgspec

from chat_service.rooms.changes import AnyChange
from chat_service.rooms.message import NO_EXTRAS, Message
from shared.protocol.message_parts import Attachment, MessageExtras, ReactionCount, ReplyPreview
from shared.protocol.server_frames import UserProfile

Document = dict[str, Any]

# The fields that a tombstone lacks. `sentAs` stays: a client that repeats its send must not store it again.
CONTENT = ("replyTo", "replyKey", "mentions", "mentionRoom", "attachments", "symbols", "reactions", "editedAtMs")


def reply_key(message_id: str, seq: int) -> str:
    """Return the key by which replies to a message are listed, oldest first."""
    return f"{message_id}/{seq:016d}"


def keys_under(message_id: str) -> Document:
    """Return the filter of all keys that begin with a message's id and "/": its replies, or its mentions."""
    return {"$gte": f"{message_id}/", "$lt": f"{message_id}0"}  # "0" follows "/"


def extras_fields(message: Message) -> Document:
    """Return the fields of a new message beyond its text; most messages have none. A preview's text is not stored."""
    extras = message.extras
    if extras is NO_EXTRAS:
        return {}
    fields: Document = {}
    if message.preview is not None:
        fields["replyTo"] = {"messageId": message.preview.message_id, "userId": message.preview.user_id}
        fields["replyKey"] = reply_key(message.preview.message_id, message.seq)
    if extras.mentions:
        fields["mentions"] = list(extras.mentions)
    if extras.mention_room:
        fields["mentionRoom"] = True
    if extras.attachments:
        fields["attachments"] = [msgspec.to_builtins(item) for item in extras.attachments]
    if extras.symbols:
        fields["symbols"] = list(extras.symbols)
    return fields


def to_message(document: Document) -> Message:
    """Return the message in the document of an entry."""
    message = Message(
        id=document["_id"],
        room_id=document["roomId"],
        seq=document["seq"],
        rev=document["rev"],
        user_id=document["userId"],
        user=msgspec.convert(document["user"], UserProfile),
        text=document["text"],
        client_message_id=document.get("clientMessageId"),
        created_at_ms=document["atMs"],
    )
    if not ("shown" in document or _HAVE_EXTRAS & document.keys()):
        return message
    replied_to = document.get("replyTo")
    return msgspec.structs.replace(
        message,
        extras=_extras_of(document),
        preview=None
        if replied_to is None
        else ReplyPreview(message_id=replied_to["messageId"], user_id=replied_to["userId"], message=""),
        reactions=tuple(msgspec.convert(item, ReactionCount) for item in document.get("reactions", ())),
        edited_at_ms=document.get("editedAtMs"),
        edit_rev=document.get("editRev", 0),
        deleted_at_ms=document.get("deletedAtMs"),
        deleted_by=document.get("deletedBy"),
        erased_rev=document.get("erasedRev", 0),
    )


def to_old_message(document: Document) -> Message:
    """Return a message of the collection `messages`, which versions before the log wrote; its rev is its seq."""
    return to_message({**document, "atMs": document["createdAtMs"], "rev": document["seq"]})


def change_fields(change: AnyChange) -> Document:
    """Return the fields of a change in the document of its entry. `commandIds` finds those that share an entry."""
    fields: Document = {"change": msgspec.to_builtins(change)}
    command_ids = fields["change"].pop("commandIds", None)
    if command_ids is not None:
        fields["commandIds"] = list(command_ids)
    return fields


def to_change(document: Document) -> AnyChange | None:
    """Return the change in the document of an entry, if it has one. Texts that were erased since are empty."""
    change = document.get("change")
    if change is None:
        return None
    if "commandIds" in document:
        change = {**change, "commandIds": document["commandIds"]}
    read: AnyChange = msgspec.convert(change, AnyChange)
    return read


_HAVE_EXTRAS = frozenset({"replyTo", "mentions", "mentionRoom", "attachments", "symbols"})


def _extras_of(document: Document) -> MessageExtras:
    if not _HAVE_EXTRAS & document.keys():
        return NO_EXTRAS
    return MessageExtras(
        reply_to=document.get("replyTo", {}).get("messageId"),
        mentions=tuple(document.get("mentions", ())),
        mention_room=document.get("mentionRoom", False),
        attachments=tuple(msgspec.convert(item, Attachment) for item in document.get("attachments", ())),
        symbols=tuple(document.get("symbols", ())),
    )
