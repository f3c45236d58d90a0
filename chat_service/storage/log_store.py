"""The log in MongoDB: every query on `room_log`, and on `messages`, where releases before the log stored messages.

`room_log`: `_id` command id; unique (roomId, rev) is the lock; unique `sentAs` makes a clientMessageId idempotent;
(roomId, seq) finds messages, and is not unique, because entries without a message have no seq; `commandIds` finds
reactions that share an entry, and `replyKey` the replies to a message: few entries have these fields.
`messages`: written by versions before the log, only read here; a message there has rev = seq by definition.

All reads that lead to a decision or close a gap use read concern majority: their results cannot be rolled back.
MongoDB finds an index for most filters. SecantusDB uses one only if it holds every field of the filter and all but the
last are compared for equality, or if the filter is one `$in`. `shared.mongo.narrowed` splits other filters.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import pymongo
from motor.motor_asyncio import AsyncIOMotorCollection
from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from chat_service.rooms.log import LogEntry
from chat_service.rooms.message import Message
from chat_service.storage.documents import from_entry, old_sent_as, sent_as, to_entry, to_place
from chat_service.storage.message_documents import CONTENT, to_message, to_old_message
from chat_service.storage.write_behind import MessagePlace
from shared.errors import WriteConflict
from shared.mongo import (
    DOCUMENTS_MAX,
    Database,
    Document,
    Indexes,
    find_among,
    narrowed,
    only_duplicates,
    translated,
    write_each,
)

_MAJORITY = ReadConcern("majority")
_ON_MAJORITY: Document = {"w": "majority", "j": True}
_ERASURE: Document = {
    "$set": {"text": "", "user": {}},
    "$unset": dict.fromkeys(("sentAs", "clientMessageId", *CONTENT), ""),
}
INSERT_TIMEOUT_S = 2.0  # gateways wait for that long after a command has expired

INDEXES: Indexes = {
    "room_log": [
        IndexModel([("roomId", ASCENDING), ("rev", ASCENDING)], unique=True),
        IndexModel([("roomId", ASCENDING), ("seq", ASCENDING)]),
        IndexModel([("sentAs", ASCENDING)], unique=True, sparse=True),
        IndexModel([("commandIds", ASCENDING)], sparse=True),
        IndexModel([("replyKey", ASCENDING)], sparse=True),
        IndexModel([("change.messageId", ASCENDING)], sparse=True),
    ],
    "messages": [
        IndexModel([("roomId", ASCENDING), ("seq", ASCENDING)], unique=True),
        IndexModel([("sentAs", ASCENDING)], unique=True, sparse=True),
    ],
}


_CHANGING = frozenset({"mentions", "mentionRoom", "change", "members"})


class LogTail(NamedTuple):
    """The places of the messages of some entries, and those entries that change mentions or members."""

    places: list[MessagePlace]
    changing: list[LogEntry]


class LogConflict(WriteConflict):
    """A unique index refused an entry; the `stored` entries before it are on a majority.

    The index that the server names proves nothing: for a document that conflicts in several keys, it reports one key.
    """

    def __init__(self, reason: str, stored: int = 0) -> None:
        super().__init__(reason)
        self.stored = stored


class UnknownOutcome(LogConflict):
    """The outcome of an insert was unknown; it has been resolved, and reading the log shows which entries it has."""


class LogStore:
    """Reads and writes of room logs. Every method raises Unavailable when the database cannot be reached in time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = database.get_collection("room_log", read_concern=_MAJORITY)
        self._old = database.get_collection("messages", read_concern=_MAJORITY)

    async def insert(self, entries: Sequence[LogEntry]) -> None:
        """Append entries in order, on a majority and journalled. Stop at the first refused entry and raise LogConflict.

        Raises Unavailable when the outcome is unknown: some entries may be stored now or later. An error of the write
        concern counts as unknown too: entries that were inserted may still be rolled back.
        """
        documents = [from_entry(entry) for entry in entries]
        try:
            with translated(), pymongo.timeout(INSERT_TIMEOUT_S):
                await self._append(documents)
        except BulkWriteError as error:
            if only_duplicates(error):
                raise LogConflict("the log holds another entry", error.details["writeErrors"][0]["index"]) from error
            raise

    async def _append(self, documents: list[Document]) -> None:
        """Insert documents in order. Raises BulkWriteError, as `insert_many` does.

        HOT: `insert_many` sends the same command, but costs more CPU per call: 0.07 ms in a tight loop, 0.35 ms at 100
        calls per second.
        """
        answer = await self._database.command(
            {"insert": "room_log", "documents": documents, "ordered": True, "writeConcern": _ON_MAJORITY}
        )
        refused = answer.get("writeErrors", [])
        unsure = [answer["writeConcernError"]] if "writeConcernError" in answer else []
        if refused or unsure:
            raise BulkWriteError({"writeErrors": refused, "writeConcernErrors": unsure, "nInserted": answer["n"]})

    async def after(self, room_id: str, rev: int) -> list[LogEntry]:
        """Return the entries after `rev`, oldest first."""
        with translated():
            cursor = self._log.find({"roomId": room_id, "rev": {"$gt": rev}})
            found = await cursor.sort("rev", ASCENDING).to_list(None)
        return [to_entry(document) for document in found]

    async def between(self, room_id: str, after: int, through: int) -> list[LogEntry]:
        """Return the entries with `after` < rev ≤ `through`, oldest first."""
        with translated():
            cursor = self._log.find({"roomId": room_id, "rev": {"$gt": after, "$lte": through}})
            found = await cursor.sort("rev", ASCENDING).to_list(None)
        return [to_entry(document) for document in found]

    async def revs(self, room_id: str, after: int, through: int) -> list[int]:
        """Return the revs of the entries with `after` < rev ≤ `through`, oldest first."""
        with translated():
            cursor = self._log.find({"roomId": room_id, "rev": {"$gt": after, "$lte": through}}, {"rev": 1})
            return [document["rev"] for document in await cursor.sort("rev", ASCENDING).to_list(None)]

    async def by_id(self, entry_ids: Collection[str]) -> list[LogEntry]:
        """Return the entries with these ids."""
        found = await find_among(self._log, entry_ids)
        return [to_entry(document) for document in found]

    async def by_shared_id(self, command_ids: Collection[str]) -> list[LogEntry]:
        """Return the entries that these commands share with other commands: reactions."""
        found = await find_among(self._log, command_ids, field="commandIds")
        return [to_entry(document) for document in found]

    async def by_client_id(self, keys: Iterable[tuple[str, str, str]]) -> list[Message]:
        """Return the messages in logs by (room id, user id, clientMessageId)."""
        return [to_message(document) for document in await _sent_as(self._log, [sent_as(*key) for key in keys])]

    async def old_by_client_id(self, keys: Iterable[tuple[str, str, str]]) -> list[Message]:
        """Return the messages from before the log by (room id, user id, clientMessageId)."""
        return [to_old_message(document) for document in await _sent_as(self._old, [old_sent_as(*key) for key in keys])]

    async def places_beyond(self, room_id: str, rev: int) -> list[MessagePlace]:
        """Return the changes to the room's record by the messages after entry `rev`, oldest first."""
        with translated():
            found = await self._log.find({"roomId": room_id, "rev": {"$gt": rev}}).sort("rev", ASCENDING).to_list(None)
        return [to_place(document) for document in found if "seq" in document]

    async def tail(self, room_id: str, rev: int) -> LogTail:
        """Return the changes by entries after `rev` that readers of counts need, oldest first."""
        with translated():
            found = await self._log.find({"roomId": room_id, "rev": {"$gt": rev}}).sort("rev", ASCENDING).to_list(None)
        return LogTail(
            [to_place(document) for document in found if "seq" in document],
            [to_entry(document) for document in found if _CHANGING & document.keys()],
        )

    async def times_since(self, room_id: str, after_rev: int, at_ms: int) -> list[tuple[int, int]]:
        """Return (rev, time) of the entries after entry `after_rev` that were made since `at_ms`, oldest first."""
        chosen = narrowed({"roomId": room_id, "rev": {"$gt": after_rev}}, {"atMs": {"$gte": at_ms}})
        stages: list[Document] = [*chosen, {"$sort": {"rev": 1}}, {"$project": {"_id": 0, "rev": 1, "atMs": 1}}]
        with translated():
            found = await self._log.aggregate(stages).to_list(None)
        return [(document["rev"], document["atMs"]) for document in found]

    async def membership_changes(self, room_id: str, after_rev: int, at_ms: int) -> list[LogEntry]:
        """Return the entries after `after_rev`, made since `at_ms`, that changed memberships, oldest first."""
        further = {"atMs": {"$gte": at_ms}, "members": {"$exists": True}}
        stages = [*narrowed({"roomId": room_id, "rev": {"$gt": after_rev}}, further), {"$sort": {"rev": 1}}]
        with translated():
            found = await self._log.aggregate(stages).to_list(None)
        return [to_entry(document) for document in found]

    async def messages_between(self, room_id: str, first: int, last: int) -> list[tuple[int, Message]]:
        """Return (rev, message) with `first` ≤ seq ≤ `last`, oldest first; before the log, rev was seq."""
        wanted = {"roomId": room_id, "seq": {"$gte": first, "$lte": last}}
        with translated():
            found = await self._log.find(wanted).sort("seq", ASCENDING).to_list(None)
            missing = found[0]["seq"] - first if found else last - first + 1
            old = []
            if missing > 0:
                before = {"roomId": room_id, "seq": {"$gte": first, "$lt": first + missing}}
                old = await self._old.find(before).sort("seq", ASCENDING).to_list(None)
        older = [(document["seq"], to_old_message(document)) for document in old]
        return older + [(document["rev"], to_message(document)) for document in found]

    async def erase_content(self, room_id: str, last_rev: int) -> None:
        """Erase the texts and names in a room's log through `last_rev`, 500 entries at a time. Idempotent.

        The entries stay readable: a stale owner may still load them.
        """
        with translated():
            for first in range(1, last_rev + 1, DOCUMENTS_MAX):
                some = {"$gte": first, "$lt": first + DOCUMENTS_MAX}
                await self._erase_effects(room_id, some)
                messages = {"roomId": room_id, "seq": some}  # no message has a seq above its rev
                await self._log.update_many(messages, _ERASURE)
                await self._old.delete_many(messages)

    async def _erase_effects(self, room_id: str, revs: Document) -> None:
        """Erase the names of members and of the room, and changes. The index finds the entries by rev alone."""
        having = {"$or": [{name: {"$exists": True}} for name in ("members", "settings", "change")]}
        fields = {"members.userId": 1, "settings.type": 1, "change.type": 1}
        with translated():
            stages = [*narrowed({"roomId": room_id, "rev": revs}, having), {"$project": fields}]
            found = await self._log.aggregate(stages).to_list(None)
        await write_each(self._log, [_effects_erasure(document) for document in found])

    async def remove_before(self, room_id: str, rev: int) -> None:
        """Remove the entries before `rev`, 500 at a time. Idempotent.

        The newest entry of a log always stays, and all entries do for a day: a stale owner could otherwise insert at a
        rev whose entry was removed.
        """
        with translated():
            for first in range(1, rev, DOCUMENTS_MAX):
                some = {"$gte": first, "$lt": min(first + DOCUMENTS_MAX, rev)}
                await self._log.delete_many({"roomId": room_id, "rev": some})


async def _sent_as(
    collection: AsyncIOMotorCollection[Document], wanted: Sequence[bytes] | Sequence[str]
) -> list[Document]:
    return await find_among(collection, wanted, field="sentAs")


def _effects_erasure(document: Document) -> UpdateOne:
    erasure: Document = {}
    if "members" in document:
        erasure["$unset"] = {"members.$[].profile": ""}
    if "change" in document:
        erasure["$unset"] = {**erasure.get("$unset", {}), "change": ""}
    if "settings" in document:
        erasure["$set"] = {"settings.name": "", "settings.description": ""}
    return UpdateOne({"_id": document["_id"]}, erasure)
