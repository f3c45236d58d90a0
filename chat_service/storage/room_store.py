"""Rooms in MongoDB: every query on the collection `room_records`, a projection of the log.

`_id` is the room id; `rev` is the entry through which the record is complete. A record is replaced only if the stored
`rev` is lower than the new one, and is written after everything else that the entry changes, so the memberships are
never older than it.
"""

import asyncio
from collections.abc import Collection, Sequence
from itertools import islice, product

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne

from chat_service.rooms.room import Room, RoomType
from chat_service.storage import log_store, member_store, message_store
from chat_service.storage.documents import from_room, is_content_erased, progress_of, to_room
from chat_service.storage.member_store import MemberStore, upsert_newer
from chat_service.storage.write_behind import MessagePlace
from shared.mongo import (
    DOCUMENTS_MAX,
    Database,
    Document,
    Indexes,
    chunks,
    find_among,
    narrowed,
    translated,
    write_each,
)

_NEWEST = {"activeAtMs": -1, "_id": -1}

INDEXES: Indexes = {
    **log_store.INDEXES,
    **member_store.INDEXES,
    **message_store.INDEXES,
    "room_records": [
        IndexModel([("deleted", ASCENDING), ("type", ASCENDING), ("activeAtMs", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("deleted", ASCENDING), ("type", ASCENDING), ("words", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("rev", ASCENDING)]),
        IndexModel([("purgeDueMs", ASCENDING)], sparse=True),
        IndexModel([("changedAtMs", ASCENDING)]),
        IndexModel([("createdBy", ASCENDING), ("deleted", ASCENDING), ("direct", ASCENDING)]),
    ],
}


class RoomStore(MemberStore):
    """Reads and writes of rooms and (inherited) memberships.

    Every method raises Unavailable when the database cannot be reached in time.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._rooms = database["room_records"]

    # For the writer -------------------------------------------------------------------------------------------------

    async def rooms(self, room_ids: Collection[str]) -> dict[str, Room]:
        """Return the rooms that have a record, deleted ones too."""
        found = await find_among(self._rooms, room_ids)
        return {document["_id"]: to_room(document) for document in found}

    async def put_rooms(self, rooms: Collection[Room]) -> None:
        """Write the records of rooms, each unless it already contains a later entry."""
        writes = [
            UpdateOne({"_id": room.id, "rev": {"$lt": room.rev}}, {"$set": from_room(room)}, upsert=True)
            for room in rooms
        ]
        await upsert_newer(self._rooms, writes)

    async def advance_rooms(self, places: Collection[MessagePlace]) -> None:
        """Move records forward to their newest messages, each unless it already contains a later entry."""
        writes = [
            UpdateOne({"_id": place.room_id, "rev": {"$lt": place.rev}}, {"$set": progress_of(place)})
            for place in places
        ]
        await write_each(self._rooms, writes)

    async def mark_active(self, room_ids: Collection[str], at_ms: int) -> None:
        """Move rooms to the top of the lists. Idempotent, and harmless if the message is not stored after all."""
        writes = [UpdateOne({"_id": room_id}, {"$max": {"activeAtMs": at_ms}}) for room_id in room_ids]
        await write_each(self._rooms, writes)

    async def ids_created_by(self, user_id: str, limit: int) -> set[str]:
        """Return rooms that a user created, at most `limit`, without direct and deleted ones."""
        chosen = {"createdBy": user_id, "deleted": False, "direct": None}
        with translated():
            found = await self._rooms.find(chosen, {"_id": 1}).limit(limit).to_list(None)
        return {document["_id"] for document in found}

    async def count_joined(self, user_id: str, pending: Collection[str]) -> int:
        """Return the number of rooms that a user belongs to or is about to join, without direct and deleted ones."""
        joined = await self.room_ids_of(user_id)
        return len(set(pending) - set(joined)) + await self._count_rooms(joined, {"direct": None, "deleted": False})

    async def have_common_room(self, user_id: str, other_id: str) -> bool:
        """Return whether two users are members of the same private or group room."""
        mine, theirs = await asyncio.gather(self.some_room_ids_of(user_id), self.some_room_ids_of(other_id))
        kinds = {"deleted": False, "type": {"$in": [RoomType.PRIVATE.value, RoomType.GROUP.value]}}
        return await self._count_rooms(sorted(mine & theirs), kinds) > 0

    async def _count_rooms(self, room_ids: Sequence[str], further: Document) -> int:
        count = 0
        for some in chunks(room_ids, DOCUMENTS_MAX):
            chosen = narrowed({"_id": {"$in": list(some)}}, further)
            with translated():
                counted = await self._rooms.aggregate([*chosen, {"$count": "n"}]).to_list(None)
            count += counted[0]["n"] if counted else 0
        return count

    async def rooms_active_since(self, at_ms: int) -> list[Room]:
        """Return the rooms, without deleted ones, whose records show an entry since then."""
        messages: list[Document] = [
            {"deleted": False, "type": kind.value, "activeAtMs": {"$gte": at_ms}} for kind in RoomType
        ]
        with translated():
            found = await asyncio.gather(
                *(self._rooms.find(chosen).to_list(None) for chosen in (*messages, {"changedAtMs": {"$gte": at_ms}}))
            )
        by_id = {document["_id"]: document for documents in found for document in documents}
        return [to_room(document) for document in by_id.values() if not document["deleted"]]

    async def rooms_before(self, room_id: str, limit: int) -> list[Room]:
        """Return at most `limit` rooms with the greatest ids below `room_id`, in descending order."""
        with translated():
            found = await self._rooms.find({"_id": {"$lt": room_id}}).sort("_id", DESCENDING).limit(limit).to_list(None)
        return [to_room(document) for document in found]

    async def rooms_to_purge(self, now_ms: int) -> list[tuple[Room, bool]]:
        """Return the deleted rooms with a due purge step, each with whether its content is erased already."""
        with translated():
            found = await self._rooms.find({"purgeDueMs": {"$lte": now_ms}}).limit(DOCUMENTS_MAX).to_list(None)
        return [(to_room(document), is_content_erased(document)) for document in found]

    async def set_purge_due(self, room_id: str, due_ms: int | None) -> None:
        """Set the due time of the next step of a room's purge; None ends the purge."""
        change = {"$unset": {"purgeDueMs": ""}} if due_ms is None else {"$set": {"purgeDueMs": due_ms}}
        with translated():
            await self._rooms.update_one({"_id": room_id}, change)

    # For the readers ------------------------------------------------------------------------------------------------

    async def direct_rooms_since(self, user_ids: Collection[str], at_ms: int, limit: int) -> list[Room]:
        """Return at most `limit` direct rooms of these users whose records show an entry since then."""
        with_message: Document = {"deleted": False, "type": RoomType.PRIVATE.value, "activeAtMs": {"$gte": at_ms}}
        with_change: Document = {"changedAtMs": {"$gte": at_ms}}
        found: dict[str, Document] = {}  # by id: the two users of a room may be in different pieces
        for some, indexed in product(chunks(list(user_ids), DOCUMENTS_MAX), (with_message, with_change)):
            chosen = narrowed(indexed, {"direct": {"$in": some}})
            with translated():
                documents = await self._rooms.aggregate([*chosen, {"$limit": limit}]).to_list(None)
            found.update((document["_id"], document) for document in documents)
        return [to_room(document) for document in islice(found.values(), limit)]

    async def public_rooms(self, words: Sequence[str], skip: int, limit: int) -> tuple[list[Room], int]:
        """Return public rooms, most recently active first, from position `skip` on, and their total.

        With `words`, only rooms whose names have a word with each of these prefixes.
        """
        chosen = narrowed({"deleted": False, "type": RoomType.PUBLIC.value}, _word_filter(words))
        page: list[Document] = [{"$sort": _NEWEST}, {"$skip": skip}, {"$limit": limit}]
        with translated():
            found, counted = await asyncio.gather(
                self._rooms.aggregate([*chosen, *page]).to_list(None),
                self._rooms.aggregate([*chosen, {"$count": "n"}]).to_list(None),
            )
        return [to_room(document) for document in found], counted[0]["n"] if counted else 0

    async def rooms_among(self, room_ids: Collection[str], types: Collection[str], words: Sequence[str]) -> list[Room]:
        """Return the given rooms that have one of the types, most recently active first."""
        further = {"deleted": False, "type": {"$in": list(types)}} | _word_filter(words)
        found: list[Document] = []
        for some in chunks(list(room_ids), DOCUMENTS_MAX):
            with translated():
                found += await self._rooms.aggregate(narrowed({"_id": {"$in": some}}, further)).to_list(None)
        newest_first = sorted(found, key=lambda document: (document["activeAtMs"], document["_id"]), reverse=True)
        return [to_room(document) for document in newest_first]


def _word_filter(words: Sequence[str]) -> Document:
    # Words hold word characters only (rooms.words_of), so none of them is special in a pattern.
    return {"$and": [{"words": {"$regex": f"^{word}"}} for word in words]} if words else {}
