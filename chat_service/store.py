"""What chat_service keeps in MongoDB, and every query it makes. The only module of it that knows the driver.

Collections: `rooms` (`_id` room id), `members` (`_id` room id/user id; who was removed stays as `removed`), `messages`
(`_id` message id; `sentAs` makes a clientMessageId unique), `partitions` (`_id` its number; `term` counts its owners).
Times are integers, milliseconds since 1970.

MongoDB finds an index for most filters. SecantusDB does so only if one index holds every field of the filter, the last
of them with a range at most, or if the filter is a single `$in`. Queries and indexes suit both: see `narrowed`, and the
indexes that begin with `_id`. tests/bench/history.py prints the plans.
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
    """Reads and writes of rooms, members and messages. Every method raises Unavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._rooms = database["rooms"]
        self._messages = database["messages"]
        self._partitions = database["partitions"]

    # For the writer -------------------------------------------------------------------------------------------------

    async def take_over(self, partition: int) -> int:
        """A term for a new owner of a partition: higher than those of all before it. Raises Conflict."""
        try:
            with translated():
                if await self._partitions.find_one({"_id": partition}) is None:
                    await self.add_missing_terms()
                document = await self._partitions.find_one_and_update(
                    {"_id": partition}, {"$inc": {"term": 1}}, upsert=True, return_document=ReturnDocument.AFTER
                )
        except DuplicateKeyError as error:
            raise StaleOwner("the partition was taken over for the first time by another replica") from error
        return int(document["term"])

    async def rooms(self, room_ids: Collection[str]) -> dict[str, Room]:
        """The rooms that exist, deleted ones too."""
        with translated():
            found = await self._rooms.find({"_id": {"$in": list(room_ids)}}).to_list(None)
        return {document["_id"]: to_room(document) for document in found}

    async def recount(self, room: Room) -> list[Post]:
        """Set what follows from messages and members to what these say; returns the messages beyond the record.

        Looks only at those: a room is never written before its messages.
        """
        beyond, count = await asyncio.gather(self.posts_beyond(room), self.count(room.id))
        room.member_count = count
        caught_up(room, None, beyond)
        return beyond

    async def messages_by_id(self, message_ids: Collection[str]) -> list[Message]:
        """Those of the messages that are stored."""
        with translated():
            found = await self._messages.find({"_id": {"$in": list(message_ids)}}).to_list(None)
        return [to_message(document) for document in found]

    async def messages_by_client_id(self, keys: Iterable[tuple[str, str, str]]) -> list[Message]:
        """Those of (room id, user id, clientMessageId) that are stored."""
        wanted = [sent_as(*key) for key in keys]
        if not wanted:
            return []
        with translated():
            found = await self._messages.find({"sentAs": {"$in": wanted}}).to_list(None)
        return [to_message(document) for document in found]

    async def insert_messages(self, messages: Sequence[Message]) -> None:
        """Insert in order, stopping at the first that is already there, so that no seq stays empty.

        Raises Conflict then: what came before it is stored, the rest is not.
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
        """Move rooms forward to their newest messages; they never go back. Can be done again, by anyone."""
        if posts:
            writes = [UpdateOne({"_id": post.room_id}, {"$max": progress_of(post)}) for post in posts]
            with translated():
                await self._rooms.bulk_write(writes, ordered=False)

    async def touch_rooms(self, room_ids: Collection[str], at_ms: int) -> None:
        """Move rooms to the top of the lists. Can be done again, and for a message that does not come about."""
        if room_ids:
            writes = [UpdateOne({"_id": room_id}, {"$max": {"activeAtMs": at_ms}}) for room_id in room_ids]
            with translated():
                await self._rooms.bulk_write(writes, ordered=False)

    async def posts_beyond(self, room: Room) -> list[Post]:
        """The messages that the room's record does not know of yet, oldest first."""
        beyond = {"roomId": room.id, "seq": {"$gt": room.last_seq}}
        with translated():
            found = await self._messages.find(beyond, _POST).sort("seq", ASCENDING).to_list(None)
        return [to_post(room, document) for document in found]

    async def rooms_active_since(self, at_ms: int) -> list[Room]:
        """The rooms whose records tell of a message since then."""
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
        """Write rooms, each over the version it was read at. Raises Conflict if another writer was there."""
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
            raise StaleOwner("a room was made twice") from error
        if result.matched_count + len(result.upserted_ids or {}) < len(rooms):
            raise StaleOwner("a room has been written by another writer")
        for room in rooms:
            room.version += 1

    async def purge(self, room_id: str) -> None:
        """Remove a deleted room's messages and members, a thousand at a time, then the room. Can be done again."""
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
        """Rooms that wait to be purged."""
        with translated():
            found = await self._rooms.find({"deleted": True}, {"_id": 1}).to_list(None)
        return [document["_id"] for document in found]

    # For the readers ------------------------------------------------------------------------------------------------

    async def direct_rooms_since(self, user_ids: Collection[str], at_ms: int, limit: int) -> list[Room]:
        """The direct rooms of these users whose records tell of a message since then, `limit` at most."""
        indexed = {"deleted": False, "type": RoomType.PRIVATE.value, "activeAtMs": {"$gte": at_ms}}
        chosen = narrowed(indexed, {"direct": {"$in": list(user_ids)}})
        with translated():
            found = await self._rooms.aggregate([*chosen, {"$limit": limit}]).to_list(None)
        return [to_room(document) for document in found]

    async def posts_since(self, room: Room, at_ms: int, most: int) -> list[Post]:
        """Of the room's last `most` messages those since then, oldest first; of newer ones than its record, all."""
        newest = {"roomId": room.id, "seq": {"$gt": room.last_seq - most}}
        chosen = narrowed(newest, {"createdAtMs": {"$gte": at_ms}})
        with translated():
            found = await self._messages.aggregate([*chosen, {"$sort": {"seq": 1}}, {"$project": _POST}]).to_list(None)
        return [to_post(room, document) for document in found]

    async def public_rooms(self, words: Sequence[str], skip: int, limit: int) -> tuple[list[Room], int]:
        """Public rooms, most recently active first, from the one at `skip` on, and the count of all.

        Of those only whose names have, for each of `words`, a word that starts with it.
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
        """Of these rooms those of the given types, most recently active first."""
        further = {"deleted": False, "type": {"$in": list(types)}} | _word_filter(words)
        chosen = narrowed({"_id": {"$in": list(room_ids)}}, further)
        with translated():
            found = await self._rooms.aggregate([*chosen, {"$sort": _NEWEST}]).to_list(None)
        return [to_room(document) for document in found]

    async def messages_between(self, room_id: str, first: int, last: int) -> list[Message]:
        """The messages with `first` ≤ seq ≤ `last`, oldest first."""
        with translated():
            cursor = self._messages.find({"roomId": room_id, "seq": {"$gte": first, "$lte": last}})
            found = await cursor.sort("seq", ASCENDING).to_list(None)
        return [to_message(document) for document in found]


def _word_filter(words: Sequence[str]) -> Document:
    # Words are made of word characters only (rooms.words_of), so nothing in them means anything to a pattern.
    return {"$and": [{"words": {"$regex": f"^{word}"}} for word in words]} if words else {}
