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

import msgspec
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from chat_service.messages import Message
from chat_service.rooms import Member, Role, Room, RoomType, words_of
from chat_service.write_behind import Post, caught_up
from shared.errors import RealtimeError
from shared.mongo import Database, Document, Indexes, only_duplicates, translated
from shared.protocol.server_frames import UserProfile

_NEWEST = {"activeAtMs": -1, "_id": -1}
_POST = {"_id": 0, "seq": 1, "userId": 1, "createdAtMs": 1}
PURGE_AT_ONCE = 1000

INDEXES: Indexes = {
    "rooms": [
        IndexModel([("deleted", ASCENDING), ("type", ASCENDING), ("activeAtMs", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("deleted", ASCENDING), ("type", ASCENDING), ("words", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("version", ASCENDING)]),
    ],
    "members": [
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("joinedAtMs", ASCENDING), ("_id", ASCENDING)]),
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("online", ASCENDING)]),
        IndexModel([("userId", ASCENDING), ("active", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("term", ASCENDING)]),
    ],
    "messages": [
        IndexModel([("roomId", ASCENDING), ("seq", ASCENDING)], unique=True),
        IndexModel([("sentAs", ASCENDING)], unique=True, sparse=True),
    ],
}


class InsertConflict(RealtimeError):
    """The disk holds something else than was believed: another writer, or an earlier try. Load again, decide again.

    Of the messages that were to be inserted the first `stored` are on disk.
    """

    def __init__(self, reason: str, stored: int = 0) -> None:
        super().__init__(reason)
        self.stored = stored


class StaleOwner(InsertConflict):
    """Another owner of the partition has written, and perhaps other rooms too."""


def member_key(room_id: str, user_id: str) -> str:
    """The `_id` of a membership; ids contain no slash."""
    return f"{room_id}/{user_id}"


def sent_as(room_id: str, user_id: str, client_message_id: str) -> str:
    """What is unique of a message with a clientMessageId, in one field, so that many are found with one `$in`."""
    return f"{room_id}/{user_id}/{client_message_id}"


def narrowed(indexed: Document, further: Document) -> list[Document]:
    """A filter as two stages of an aggregation: MongoDB makes one of them, SecantusDB an index scan and a filter."""
    return [{"$match": indexed}, {"$match": further}]


class RoomStore:
    """Reads and writes of rooms, members and messages. Every method raises Unavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._rooms = database["rooms"]
        self._members = database["members"]
        self._messages = database["messages"]
        self._partitions = database["partitions"]

    # For the writer -------------------------------------------------------------------------------------------------

    async def take_over(self, partition: int) -> int:
        """A term for a new owner of a partition: higher than those of all before it. Raises Conflict."""
        try:
            with translated():
                if await self._partitions.find_one({"_id": partition}) is None:  # perhaps there were no terms before
                    first = {"$set": {"term": 0, "removed": False}}
                    await self._members.update_many({"term": {"$exists": False}}, first)
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
        return {document["_id"]: _to_room(document) for document in found}

    async def members(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Member]:
        """The memberships that exist, active or not, by (room id, user id)."""
        ids = [member_key(room_id, user_id) for room_id, user_id in keys]
        with translated():
            found = await self._members.find({"_id": {"$in": ids}}).to_list(None)
        kept = (document for document in found if not document.get("removed"))
        return {(document["roomId"], document["userId"]): _to_member(document) for document in kept}

    async def recount(self, room: Room) -> list[Post]:
        """Set what follows from messages and members to what these say; returns the messages beyond the record.

        Looks only at those: a room is never written before its messages.
        """
        with translated():
            beyond, count = await asyncio.gather(
                self.posts_beyond(room), self._members.count_documents({"roomId": room.id, "active": True})
            )
        room.member_count = count
        caught_up(room, None, beyond)
        return beyond

    async def messages_by_id(self, message_ids: Collection[str]) -> list[Message]:
        """Those of the messages that are stored."""
        with translated():
            found = await self._messages.find({"_id": {"$in": list(message_ids)}}).to_list(None)
        return [_to_message(document) for document in found]

    async def messages_by_client_id(self, keys: Iterable[tuple[str, str, str]]) -> list[Message]:
        """Those of (room id, user id, clientMessageId) that are stored."""
        wanted = [sent_as(*key) for key in keys]
        if not wanted:
            return []
        with translated():
            found = await self._messages.find({"sentAs": {"$in": wanted}}).to_list(None)
        return [_to_message(document) for document in found]

    async def put_members(self, changed: dict[tuple[str, str], Member | None], term: int) -> None:
        """Write memberships as they now are; None removes. Can be done again. Raises Conflict if an owner of a later
        term has written one of them: what was decided before it must not undo what it did."""
        writes = [_member_write(key, member, term) for key, member in changed.items()]
        if writes:
            try:
                with translated():
                    await self._members.bulk_write(writes, ordered=False)
            except BulkWriteError as error:
                if only_duplicates(error):
                    raise StaleOwner("a membership has been written by a later owner") from error
                raise

    async def put_read_marks(self, marks: dict[tuple[str, str], int]) -> None:
        """Move read marks forward; they never go back."""
        if marks:
            writes = [UpdateOne({"_id": member_key(*key)}, {"$max": {"readSeq": seq}}) for key, seq in marks.items()]
            with translated():
                await self._members.bulk_write(writes, ordered=False)

    async def insert_messages(self, messages: Sequence[Message]) -> None:
        """Insert in order, stopping at the first that is already there, so that no seq stays empty.

        Raises Conflict then: what came before it is stored, the rest is not.
        """
        if not messages:
            return
        try:
            with translated():
                await self._messages.insert_many([_from_message(message) for message in messages], ordered=True)
        except BulkWriteError as error:
            if only_duplicates(error):
                reason = "a message, its seq or its clientMessageId is already stored"
                raise InsertConflict(reason, error.details["writeErrors"][0]["index"]) from error
            raise

    async def advance_rooms(self, posts: Collection[Post]) -> None:
        """Move rooms forward to their newest messages; they never go back. Can be done again, by anyone."""
        if posts:
            writes = [UpdateOne({"_id": post.room_id}, {"$max": _progress(post)}) for post in posts]
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
        return [_to_post(room, document) for document in found]

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
        return [_to_room(document) for documents in found for document in documents]

    async def put_rooms(self, rooms: Collection[Room]) -> None:
        """Write rooms, each over the version it was read at. Raises Conflict if another writer was there."""
        if not rooms:
            return
        writes = []
        for room in rooms:
            document = _from_room(room) | {"version": room.version + 1}
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
            while found := await self._members.find({"roomId": room_id}, {"_id": 1}).limit(PURGE_AT_ONCE).to_list(None):
                await self._members.delete_many({"_id": {"$in": [document["_id"] for document in found]}})
            await self._rooms.delete_one({"_id": room_id, "version": room.version})

    async def deleted_rooms(self) -> list[str]:
        """Rooms that wait to be purged."""
        with translated():
            found = await self._rooms.find({"deleted": True}, {"_id": 1}).to_list(None)
        return [document["_id"] for document in found]

    async def active_now(self, room_ids: Collection[str]) -> dict[str, int]:
        """How many members are online, by room; rooms where nobody is are absent."""
        present = {"active": True, "online": True}
        if len(room_ids) == 1:  # all of it indexed, whatever the database, and the usual case
            chosen: list[Document] = [{"$match": {"roomId": next(iter(room_ids)), **present}}]
        else:
            chosen = narrowed({"roomId": {"$in": list(room_ids)}}, present)
        with translated():
            counting = self._members.aggregate([*chosen, {"$group": {"_id": "$roomId", "n": {"$sum": 1}}}])
            counts = await counting.to_list(None)
        return {document["_id"]: document["n"] for document in counts}

    # For the readers ------------------------------------------------------------------------------------------------

    async def direct_rooms_since(self, user_ids: Collection[str], at_ms: int, limit: int) -> list[Room]:
        """The direct rooms of these users whose records tell of a message since then, `limit` at most."""
        indexed = {"deleted": False, "type": RoomType.PRIVATE.value, "activeAtMs": {"$gte": at_ms}}
        chosen = narrowed(indexed, {"direct": {"$in": list(user_ids)}})
        with translated():
            found = await self._rooms.aggregate([*chosen, {"$limit": limit}]).to_list(None)
        return [_to_room(document) for document in found]

    async def posts_since(self, room: Room, at_ms: int, most: int) -> list[Post]:
        """Of the room's last `most` messages those since then, oldest first; of newer ones than its record, all."""
        newest = {"roomId": room.id, "seq": {"$gt": room.last_seq - most}}
        chosen = narrowed(newest, {"createdAtMs": {"$gte": at_ms}})
        with translated():
            found = await self._messages.aggregate([*chosen, {"$sort": {"seq": 1}}, {"$project": _POST}]).to_list(None)
        return [_to_post(room, document) for document in found]

    async def room_ids_of(self, user_id: str) -> list[str]:
        """The rooms that a user is a member of."""
        with translated():
            found = await self._members.find({"userId": user_id, "active": True}, {"roomId": 1}).to_list(None)
        return [document["roomId"] for document in found]

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
        return [_to_room(document) for document in found], counted[0]["n"] if counted else 0

    async def rooms_among(self, room_ids: Collection[str], types: Collection[str], words: Sequence[str]) -> list[Room]:
        """Of these rooms those of the given types, most recently active first."""
        further = {"deleted": False, "type": {"$in": list(types)}} | _word_filter(words)
        chosen = narrowed({"_id": {"$in": list(room_ids)}}, further)
        with translated():
            found = await self._rooms.aggregate([*chosen, {"$sort": _NEWEST}]).to_list(None)
        return [_to_room(document) for document in found]

    async def messages_between(self, room_id: str, first: int, last: int) -> list[Message]:
        """The messages with `first` ≤ seq ≤ `last`, oldest first."""
        with translated():
            cursor = self._messages.find({"roomId": room_id, "seq": {"$gte": first, "$lte": last}})
            found = await cursor.sort("seq", ASCENDING).to_list(None)
        return [_to_message(document) for document in found]

    async def member_page(self, room_id: str, skip: int, limit: int) -> tuple[list[Member], int]:
        """Active members, longest there first, and their count."""
        chosen = {"roomId": room_id, "active": True}
        with translated():
            cursor = self._members.find(chosen).sort([("joinedAtMs", 1), ("_id", 1)]).skip(skip).limit(limit)
            found, total = await asyncio.gather(cursor.to_list(None), self._members.count_documents(chosen))
        return [_to_member(document) for document in found], total


def _to_post(room: Room, document: Document) -> Post:
    return Post(room.id, document["seq"], document["userId"], document["createdAtMs"])


def _progress(post: Post) -> Document:
    return {"lastSeq": post.seq, "lastMessageAtMs": post.created_at_ms, "activeAtMs": post.created_at_ms}


def _word_filter(words: Sequence[str]) -> Document:
    # Words are made of word characters only (rooms.words_of), so nothing in them means anything to a pattern.
    return {"$and": [{"words": {"$regex": f"^{word}"}} for word in words]} if words else {}


def _member_write(key: tuple[str, str], member: Member | None, term: int) -> UpdateOne:
    """Where the filter does not fit a document that is there, the upsert fails: its `_id` is taken."""
    room_id, user_id = key
    chosen = {"_id": member_key(room_id, user_id), "term": {"$lte": term}}
    if member is None:
        gone = {"roomId": room_id, "userId": user_id, "active": False, "removed": True, "term": term}
        unset = {"role": "", "joinedAtMs": "", "profile": "", "readSeq": ""}
        return UpdateOne(chosen, {"$set": gone, "$unset": unset}, upsert=True)
    fields = {
        "roomId": member.room_id,
        "userId": member.user_id,
        "role": member.role.value,
        "joinedAtMs": member.joined_at_ms,
        "profile": msgspec.to_builtins(member.profile),
        "active": member.active,
        "removed": False,
        "term": term,
    }
    return UpdateOne(chosen, {"$set": fields, "$max": {"readSeq": member.read_seq}}, upsert=True)


def _to_member(document: Document) -> Member:
    return Member(
        room_id=document["roomId"],
        user_id=document["userId"],
        role=Role(document["role"]),
        joined_at_ms=document["joinedAtMs"],
        read_seq=document["readSeq"],
        profile=_to_profile(document["profile"]),
        active=document["active"],
    )


def _from_room(room: Room) -> Document:
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


def _to_room(document: Document) -> Room:
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


def _from_message(message: Message) -> Document:
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


def _to_message(document: Document) -> Message:
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
