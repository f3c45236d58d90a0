"""Messages in their current state, with reactions, pins and mentions: projections of the changes in the log.

A message's current state is in its own document in `room_log` (in `messages`, if it was stored before there was a log),
written only where `shown` is lower than the rev of the change. Further collections, written by the same rule:

- `message_reactions`: one document per message, user and emoji;
- `message_pins`: one per message;
- `message_mentions`: one per message and user.

A document that is no longer in effect is kept with `active: false`, so that an outdated write cannot revive it. Only
the reactions of a deleted message are removed.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.read_concern import ReadConcern

from chat_service.rooms.change_frames import as_current
from chat_service.rooms.decision import Toggle
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.message import Message, previewed
from chat_service.storage.change_writes import ChangeWrites, reaction_key
from chat_service.storage.member_store import upsert_newer
from chat_service.storage.message_documents import keys_under, to_message, to_old_message
from shared.mongo import (
    DOCUMENTS_MAX,
    ONE_BATCH,
    Database,
    Document,
    Indexes,
    chunks,
    find_among,
    narrowed,
    remove_all,
    translated,
    write_each,
)

_MAJORITY = ReadConcern("majority")
PINS_READ_MAX = 100
_NO_MENTIONS: Document = {
    "$unset": dict.fromkeys(
        ("change.mentions", "change.mentionRoom", "change.unmentioned", "change.newlyMentioned"), ""
    )
}
_ERASED: dict[str, Document] = {  # by kind of entry
    EntryKind.EDITED.value: {"$set": {"change.text": ""}, **_NO_MENTIONS},
    EntryKind.REACTED.value: {"$set": {"change.changes": [], "change.counts": []}},
}

INDEXES: Indexes = {
    "message_reactions": [
        IndexModel([("messageId", ASCENDING), ("active", ASCENDING), ("atMs", DESCENDING), ("_id", DESCENDING)]),
        IndexModel(
            [("messageId", ASCENDING), ("active", ASCENDING), ("emoji", ASCENDING), ("atMs", DESCENDING)],
        ),
        IndexModel([("roomId", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("rev", ASCENDING)]),
    ],
    "message_pins": [
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("atMs", DESCENDING)]),
        IndexModel([("_id", ASCENDING), ("rev", ASCENDING)]),
    ],
    "message_mentions": [
        IndexModel([("bucket", ASCENDING)]),
        IndexModel([("roomId", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("rev", ASCENDING)]),
    ],
}


class Pinned(NamedTuple):
    """A pin that is in effect."""

    message_id: str
    user_id: str
    at_ms: int


class Reacted(NamedTuple):
    """A user's reaction that is in effect."""

    user_id: str
    emoji: str
    at_ms: int


class MessageStore:
    """Reads and writes of messages' current state. Every method raises Unavailable when the database cannot answer."""

    def __init__(self, database: Database) -> None:
        self._log = database.get_collection("room_log", read_concern=_MAJORITY)
        self._old = database.get_collection("messages", read_concern=_MAJORITY)
        self._reactions = database.get_collection("message_reactions", read_concern=_MAJORITY)
        self._pins = database.get_collection("message_pins", read_concern=_MAJORITY)
        self._mentions = database.get_collection("message_mentions", read_concern=_MAJORITY)

    # Reading --------------------------------------------------------------------------------------------------------

    async def messages(self, message_ids: Collection[str]) -> dict[str, Message]:
        """Return the messages with these ids, by id, with the current texts of the messages that they reply to."""
        found = await self.by_id(message_ids)
        return {message.id: message for message in await self.with_previews(list(found.values()))}

    async def with_previews(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages with the current texts of the messages that they reply to."""
        wanted = {message.preview.message_id for message in messages if message.preview is not None}
        if not wanted:
            return list(messages)
        return previewed(messages, await self.by_id(wanted))

    async def current(self, entries: Sequence[LogEntry]) -> list[LogEntry]:
        """Return entries read from a log as a replay shows them; see `as_current`."""
        now = await self.named_in(entries)
        return [as_current(entry, now) for entry in entries]

    async def named_in(self, entries: Iterable[LogEntry]) -> dict[str, Message]:
        """Return the current state, by id, of the messages that entries change or reply to."""
        entries = list(entries)
        wanted = {entry.change.message_id for entry in entries if entry.change is not None}
        wanted |= {
            entry.message.preview.message_id
            for entry in entries
            if entry.message is not None and entry.message.preview is not None
        }
        return await self.by_id(wanted) if wanted else {}

    async def by_id(self, message_ids: Collection[str]) -> dict[str, Message]:
        """Return the messages with these ids, by id, without the texts of those that they reply to."""
        in_log = await find_among(self._log, message_ids)
        found = {document["_id"]: to_message(document) for document in in_log if "seq" in document}
        missing = set(message_ids) - found.keys()
        if missing:
            found |= {document["_id"]: to_old_message(document) for document in await find_among(self._old, missing)}
        return found

    async def replies(self, message_id: str, skip: int, limit: int) -> tuple[list[Message], int]:
        """Return a page of the replies to a message, oldest first, and their total number."""
        chosen = {"replyKey": keys_under(message_id)}
        with translated():
            total = await self._log.count_documents(chosen)
            cursor = self._log.find(chosen).sort("replyKey", ASCENDING).skip(skip).limit(limit)
            found = await cursor.to_list(None)
        return await self.with_previews([to_message(document) for document in found]), total

    async def reactions(self, keys: Collection[tuple[str, str, str]]) -> dict[tuple[str, str, str], Toggle]:
        """Return the reactions with these keys, in effect or not, by (message id, user id, emoji)."""
        by_id = {reaction_key(*key): key for key in keys}
        found = await find_among(self._reactions, by_id)
        return {by_id[document["_id"]]: Toggle(document["active"], document["rev"]) for document in found}

    async def reaction_page(
        self, message_id: str, emoji: str | None, skip: int, limit: int
    ) -> tuple[list[Reacted], int]:
        """Return a page of the reactions to a message, with one emoji or all, newest first, and their total number."""
        chosen: Document = {"messageId": message_id, "active": True}
        if emoji is not None:
            chosen["emoji"] = emoji
        with translated():
            total = await self._reactions.count_documents(chosen)
            cursor = self._reactions.find(chosen).sort([("atMs", DESCENDING), ("_id", DESCENDING)])
            found = await cursor.skip(skip).limit(limit).to_list(None)
        return [Reacted(document["userId"], document["emoji"], document["atMs"]) for document in found], total

    async def pins(self, room_id: str) -> list[Pinned]:
        """Return the pins of a room, newest first."""
        chosen = {"roomId": room_id, "active": True}
        with translated():
            found = await self._pins.find(chosen).sort("atMs", DESCENDING).limit(PINS_READ_MAX).to_list(None)
        return [Pinned(document["_id"], document["userId"], document["atMs"]) for document in found]

    async def pin_marks(self, room_id: str, message_ids: Collection[str]) -> dict[str, Toggle]:
        """Return, by message, the pins of a room that are in effect, and any that these messages ever had."""
        with translated():
            active = self._pins.find({"roomId": room_id, "active": True}).limit(PINS_READ_MAX)
            found = await active.to_list(None)
        found += await find_among(self._pins, message_ids)
        return {document["_id"]: Toggle(document["active"], document["rev"]) for document in found}

    async def mentions(self, bucket_keys: Collection[str]) -> dict[str, list[int]]:
        """Return the seqs of the messages that mention the user, or the room, of each bucket; see `bucket_key`."""
        found: dict[str, list[int]] = {}
        for some in chunks(list(bucket_keys), DOCUMENTS_MAX):
            stages = narrowed({"bucket": {"$in": some}}, {"active": True})
            grouped: Document = {"$group": {"_id": "$bucket", "seqs": {"$push": "$seq"}}}
            with translated():
                documents = await self._mentions.aggregate([*stages, grouped], batchSize=ONE_BATCH).to_list(None)
            found |= {document["_id"]: document["seqs"] for document in documents}
        return found

    async def ever_mentioned(self, message_id: str) -> list[str]:
        """Return the users whom any version of a message mentioned; `ROOM` stands for all members."""
        with translated():
            found = await self._mentions.find({"_id": keys_under(message_id)}, {"userId": 1}).to_list(None)
        return [document["userId"] for document in found]

    # Writing --------------------------------------------------------------------------------------------------------

    async def write_changes(self, entries: Iterable[LogEntry]) -> None:
        """Write the changes of messages that these entries make. Idempotent; pass each room's entries in log order."""
        writes = ChangeWrites()
        for entry in entries:
            writes.add(entry)
        await write_each(self._log, writes.of_log())
        await write_each(self._old, writes.of_old())
        await upsert_newer(self._reactions, list(writes.reactions.values()))
        await upsert_newer(self._pins, list(writes.pins.values()))
        await upsert_newer(self._mentions, list(writes.mentions.values()))
        for message_id in writes.erased:
            await self._erase(message_id)

    async def _erase(self, message_id: str) -> None:
        """Erase the texts, mentions and reactions that the log entries about a message still hold. Idempotent.

        The entries stay readable, and the last one still records the deletion.
        """
        with translated():
            await self._reactions.delete_many({"messageId": message_id})
            found = await self._log.find({"change.messageId": message_id}, {"kind": 1}).to_list(None)
        writes = [
            UpdateOne({"_id": document["_id"]}, _ERASED.get(document["kind"], _NO_MENTIONS)) for document in found
        ]
        await write_each(self._log, writes)

    async def purge(self, room_id: str) -> None:
        """Remove the reactions, pins and mentions of a room, 500 at a time."""
        for collection in (self._reactions, self._pins, self._mentions):
            await remove_all(collection, {"roomId": room_id})
