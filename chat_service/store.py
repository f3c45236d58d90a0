"""Rooms and messages in MongoDB. `RoomStore` adds them to the memberships of `MemberStore`.

Collections: `rooms` (`_id` room id), `messages` (`_id` message id; `sentAs` makes a clientMessageId unique),
`partitions` (`_id` its number; `term` counts its owners), and `members` (see `member_store`). Times are integers,
milliseconds since 1970. Only the `*store` modules of this service know the driver.

MongoDB finds an index for most filters. SecantusDB, the embedded database of development, uses an index only if it
holds every field of the filter, with equality on all but the last, or if the filter is a single `$in`. Queries and
indexes suit both: see `narrowed`, and the indexes that begin with `_id`. tests/bench/history.py prints the plans.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from chat_service import member_store
from chat_service.documents import from_message, from_room, progress_of, sent_as, to_message, to_post, to_room
from chat_service.member_store import MemberStore
from chat_service.messages import Message
from chat_service.rooms import Room, RoomType
from chat_service.write_behind import Post, caught_up
from shared.errors import StaleOwner, WriteConflict
from shared.mongo import Database, Document, Indexes, narrowed, only_duplicates, translated

_NEWEST = {"activeAtMs": -1, "_id": -1}
_POST = {"_id": 0, "seq": 1, "userId": 1, "createdAtMs": 1}
PURGE_AT_ONCE = 1000

INDEXES: Indexes = {
    **member_store.INDEXES,
    "rooms": [
        IndexModel([("deleted", ASCENDING), ("type", ASCENDING), ("activeAtMs", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("deleted", ASCENDING), ("type", ASCENDING), ("words", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("version", ASCENDING)]),
    ],
    "messages": [
        IndexModel([("roomId", ASCENDING), ("seq", ASCENDING)], unique=True),
        IndexModel([("sentAs", ASCENDING)], unique=True, sparse=True),
    ],
}


class InsertConflict(WriteConflict):
    """A message, its seq or its clientMessageId is stored already; the `stored` messages before it are on disk now."""

    def __init__(self, reason: str, stored: int = 0) -> None:
        super().__init__(reason)
        self.stored = stored


class RoomStore(MemberStore):
    """Reads and writes of rooms, members and messages.

    Every method raises Unavailable when the database is unavailable.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._rooms = database["rooms"]
        self._messages = database["messages"]
        self._partitions = database["partitions"]

    # For the writer -------------------------------------------------------------------------------------------------

    async def take_over(self, partition: int) -> int:
        """Return a term for a new owner of a partition, above all earlier ones. Raises StaleOwner."""
        try:
            with translated():
                if await self._partitions.find_one({"_id": partition}) is None:
                    await self.add_missing_terms()
                document = await self._partitions.find_one_and_update(
                    {"_id": partition}, {"$inc": {"term": 1}}, upsert=True, return_document=ReturnDocument.AFTER
                )
        except DuplicateKeyError as error:
            raise StaleOwner("another replica was the first to take the partition over") from error
        return int(document["term"])

    async def rooms(self, room_ids: Collection[str]) -> dict[str, Room]:
        """Return the rooms that exist, including deleted ones."""
        with translated():
            found = await self._rooms.find({"_id": {"$in": list(room_ids)}}).to_list(None)
        return {document["_id"]: to_room(document) for document in found}

    async def recount(self, room: Room) -> list[Post]:
        """Set the fields that follow from messages and members, and return the messages beyond the record.

        Reads only those: a room is never written before its messages.
        """
        beyond, count = await asyncio.gather(self.posts_beyond(room), self.count(room.id))
        room.member_count = count
        caught_up(room, None, beyond)
        return beyond

    async def messages_by_id(self, message_ids: Collection[str]) -> list[Message]:
        """Return the messages that are stored."""
        with translated():
            found = await self._messages.find({"_id": {"$in": list(message_ids)}}).to_list(None)
        return [to_message(document) for document in found]

    async def messages_by_client_id(self, keys: Iterable[tuple[str, str, str]]) -> list[Message]:
        """Return the messages that are stored, by (room id, user id, clientMessageId)."""
        wanted = [sent_as(*key) for key in keys]
        if not wanted:
            return []
        with translated():
            found = await self._messages.find({"sentAs": {"$in": wanted}}).to_list(None)
        return [to_message(document) for document in found]

    async def insert_messages(self, messages: Sequence[Message]) -> None:
        """Insert in order, up to the first that is stored already, so that seqs have no gap.

        Raises InsertConflict then: the messages before it are stored, the rest are not.
        """
        if not messages:
            return
        try:
            with translated():
                await self._messages.insert_many([from_message(message) for message in messages], ordered=True)
        except BulkWriteError as error:
            if only_duplicates(error):
                reason = "a message, its seq or its clientMessageId is already stored"
                raise InsertConflict(reason, error.details["writeErrors"][0]["index"]) from error
            raise

    async def advance_rooms(self, posts: Collection[Post]) -> None:
        """Move rooms forward to their newest messages, never back. Idempotent, by any process."""
        if posts:
            writes = [UpdateOne({"_id": post.room_id}, {"$max": progress_of(post)}) for post in posts]
            with translated():
                await self._rooms.bulk_write(writes, ordered=False)

    async def touch_rooms(self, room_ids: Collection[str], at_ms: int) -> None:
        """Move rooms to the top of the lists. Idempotent; harmless if the message is never stored."""
        if room_ids:
            writes = [UpdateOne({"_id": room_id}, {"$max": {"activeAtMs": at_ms}}) for room_id in room_ids]
            with translated():
                await self._rooms.bulk_write(writes, ordered=False)

    async def posts_beyond(self, room: Room) -> list[Post]:
        """Return the messages that the room's record does not know yet, oldest first."""
        beyond = {"roomId": room.id, "seq": {"$gt": room.last_seq}}
        with translated():
            found = await self._messages.find(beyond, _POST).sort("seq", ASCENDING).to_list(None)
        return [to_post(room, document) for document in found]

    async def rooms_active_since(self, at_ms: int) -> list[Room]:
        """Return the rooms whose records show a message since then."""
        with translated():
            found = await asyncio.gather(
                *(
                    self._rooms.find({"deleted": False, "type": kind.value, "activeAtMs": {"$gte": at_ms}}).to_list(
                        None
                    )
                    for kind in RoomType
                )
            )
        return [to_room(document) for documents in found for document in documents]

    async def put_rooms(self, rooms: Collection[Room]) -> None:
        """Write rooms, each over the version that was read. Raises StaleOwner after another writer."""
        if not rooms:
            return
        writes = []
        for room in rooms:
            document = from_room(room) | {"version": room.version + 1}
            fresh = room.version == 0
            writes.append(ReplaceOne({"_id": room.id, "version": room.version}, document, upsert=fresh))
        try:
            with translated():
                result = await self._rooms.bulk_write(writes, ordered=False)
        except (BulkWriteError, DuplicateKeyError) as error:
            raise StaleOwner("another writer made the room") from error
        if result.matched_count + len(result.upserted_ids or {}) < len(rooms):
            raise StaleOwner("another writer has written the room")
        for room in rooms:
            room.version += 1

    async def purge(self, room_id: str) -> None:
        """Remove a deleted room's messages and members, a thousand at a time, then the room. Idempotent."""
        room = (await self.rooms([room_id])).get(room_id)
        if room is None or not room.deleted:
            return
        await self.recount(room)
        with translated():
            for first in range(1, room.last_seq + 1, PURGE_AT_ONCE):
                some = {"$gte": first, "$lt": first + PURGE_AT_ONCE}
                await self._messages.delete_many({"roomId": room_id, "seq": some})
        await self.purge_members(room_id)
        with translated():
            await self._rooms.delete_one({"_id": room_id, "version": room.version})

    async def deleted_rooms(self) -> list[str]:
        """Return the rooms that wait to be purged."""
        with translated():
            found = await self._rooms.find({"deleted": True}, {"_id": 1}).to_list(None)
        return [document["_id"] for document in found]

    # For the readers ------------------------------------------------------------------------------------------------

    async def direct_rooms_since(self, user_ids: Collection[str], at_ms: int, limit: int) -> list[Room]:
        """Return at most `limit` direct rooms of these users whose records show a message since then."""
        indexed = {"deleted": False, "type": RoomType.PRIVATE.value, "activeAtMs": {"$gte": at_ms}}
        chosen = narrowed(indexed, {"direct": {"$in": list(user_ids)}})
        with translated():
            found = await self._rooms.aggregate([*chosen, {"$limit": limit}]).to_list(None)
        return [to_room(document) for document in found]

    async def posts_since(self, room: Room, at_ms: int, most: int) -> list[Post]:
        """Return the posts since then among the room's last `most`, oldest first.

        Posts beyond the room's record are always considered.
        """
        newest = {"roomId": room.id, "seq": {"$gt": room.last_seq - most}}
        chosen = narrowed(newest, {"createdAtMs": {"$gte": at_ms}})
        with translated():
            found = await self._messages.aggregate([*chosen, {"$sort": {"seq": 1}}, {"$project": _POST}]).to_list(None)
        return [to_post(room, document) for document in found]

    async def public_rooms(self, words: Sequence[str], skip: int, limit: int) -> tuple[list[Room], int]:
        """Return public rooms, most recently active first, from position `skip` on, and their total.

        With `words`, only rooms whose name has for each of them a word with that prefix.
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
        """Return those of the rooms that have one of the types, most recently active first."""
        further = {"deleted": False, "type": {"$in": list(types)}} | _word_filter(words)
        chosen = narrowed({"_id": {"$in": list(room_ids)}}, further)
        with translated():
            found = await self._rooms.aggregate([*chosen, {"$sort": _NEWEST}]).to_list(None)
        return [to_room(document) for document in found]

    async def messages_between(self, room_id: str, first: int, last: int) -> list[Message]:
        """Return the messages with `first` ≤ seq ≤ `last`, oldest first."""
        with translated():
            cursor = self._messages.find({"roomId": room_id, "seq": {"$gte": first, "$lte": last}})
            found = await cursor.sort("seq", ASCENDING).to_list(None)
        return [to_message(document) for document in found]


def _word_filter(words: Sequence[str]) -> Document:
    # Words hold word characters only (rooms.words_of), so none of them is special in a pattern.
    return {"$and": [{"words": {"$regex": f"^{word}"}} for word in words]} if words else {}
