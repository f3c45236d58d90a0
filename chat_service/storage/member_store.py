"""Memberships in MongoDB: every query on the collection `room_members`, a projection of the log.

`_id` is room id/user id. Each write carries the `rev` of its entry and loses to a later one, so any owner may
write any projection any number of times. The record of a former member is kept with that rev. `active` is the older
name of `is_joined`, kept on disk. `online` is the online flag, which follows the user's presence, so that an index
counts the members online.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from pymongo import ASCENDING, IndexModel, UpdateMany, UpdateOne
from pymongo.errors import BulkWriteError

from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect
from chat_service.rooms.room import Member, Membership, Role
from chat_service.storage.documents import from_effect, member_key, to_member
from shared.mongo import (
    DOCUMENTS_MAX,
    Database,
    Document,
    Documents,
    Indexes,
    chunks,
    find_among,
    narrowed,
    only_duplicates,
    remove_all,
    translated,
    write_each,
)

INDEXES: Indexes = {
    "room_members": [
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("joinedAtMs", ASCENDING), ("_id", ASCENDING)]),
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("online", ASCENDING)]),
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("role", ASCENDING), ("roleSinceMs", ASCENDING)]),
        IndexModel([("userId", ASCENDING), ("active", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("rev", ASCENDING)]),
    ],
}

MemberChange = tuple[LogEntry, MemberEffect]

COUNTED_AT_ONCE = 20  # rooms: 65 ms for ten of 1,000 members
USERS_COUNTED_AT_ONCE = 50  # 45 ms on SecantusDB if each is a member of 20 rooms; everything else waits for that long
ROOMS_READ_MAX = 2_000


class MemberStore:
    """Reads and writes of memberships. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._members = database["room_members"]

    # For the writer -------------------------------------------------------------------------------------------------

    async def members(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Member]:
        """Return the memberships that exist, joined or only invited, by (room id, user id)."""
        ids = [member_key(room_id, user_id) for room_id, user_id in keys]
        found = await find_among(self._members, ids)
        kept = (document for document in found if document["active"] or document["invited"])
        return {(document["roomId"], document["userId"]): to_member(document) for document in kept}

    async def heirs(self, room_id: str, count: int) -> list[Member]:
        """Return the `count` longest-standing moderators, and the `count` longest-standing joined members."""
        joined = {"roomId": room_id, "active": True}
        moderators = self._members.find({**joined, "role": Role.MODERATOR.value}).sort([("roleSinceMs", ASCENDING)])
        longest = self._members.find(joined).sort([("joinedAtMs", ASCENDING), ("_id", ASCENDING)])
        with translated():
            found = await asyncio.gather(moderators.limit(count).to_list(None), longest.limit(count).to_list(None))
        return [to_member(document) for documents in found for document in documents]

    async def membership_counts(self, user_ids: Collection[str]) -> dict[str, int]:
        """Return the number of rooms that each user belongs to, direct rooms included; users without any are absent."""
        counts: dict[str, int] = {}
        for some in chunks(list(user_ids), USERS_COUNTED_AT_ONCE):
            chosen = narrowed({"userId": {"$in": some}}, {"active": True})
            with translated():
                counting = self._members.aggregate([*chosen, {"$group": {"_id": "$userId", "n": {"$sum": 1}}}])
                counts |= {document["_id"]: document["n"] for document in await counting.to_list(None)}
        return counts

    async def some_room_ids_of(self, user_id: str) -> set[str]:
        """Return at most 2,000 rooms that a user is a member of."""
        with translated():
            chosen = self._members.find({"userId": user_id, "active": True}, {"roomId": 1}).limit(ROOMS_READ_MAX)
            return {document["roomId"] for document in await chosen.to_list(None)}

    async def put_members(self, entries: Collection[LogEntry]) -> None:
        """Write the memberships that entries changed, each unless a later entry has written it already."""
        changes = [(entry, effect) for entry in entries for effect in entry.members]
        new = [(entry, effect) for entry, effect in changes if entry.kind is EntryKind.CREATED]
        known = await self._insert_members(new)
        known += [(entry, effect) for entry, effect in changes if entry.kind is not EntryKind.CREATED]
        await upsert_newer(self._members, [_member_write(entry, effect) for entry, effect in known])

    async def _insert_members(self, changes: Sequence[MemberChange]) -> list[MemberChange]:
        """Insert the memberships of new rooms, and return those that an earlier attempt inserted.

        SecantusDB needs 20 ms for 500 inserts, and 120 ms for 500 upserts.
        """
        existing: list[MemberChange] = []
        for some in chunks(changes, DOCUMENTS_MAX):
            documents = [
                {"_id": member_key(entry.room_id, effect.user_id), "readSeq": effect.read_seq}
                | from_effect(entry.room_id, effect, entry.rev)
                for entry, effect in some
            ]
            try:
                with translated():
                    await self._members.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                if not only_duplicates(error):
                    raise
                existing += [some[failure["index"]] for failure in error.details["writeErrors"]]
        return existing

    async def put_read_marks(self, marks: dict[tuple[str, str], int]) -> None:
        """Move read marks forward, never back."""
        writes = [UpdateOne({"_id": member_key(*key)}, {"$max": {"readSeq": seq}}) for key, seq in marks.items()]
        await write_each(self._members, writes)

    # For presence ---------------------------------------------------------------------------------------------------

    async def set_online_flags(self, flags: Mapping[tuple[str, str], bool]) -> None:
        """Set the online flag of memberships, given by (room id, user id), 500 per call."""
        for some in chunks(list(flags.items()), DOCUMENTS_MAX):
            writes = []
            for is_online in (True, False):
                ids = [member_key(*key) for key, flag in some if flag is is_online]
                if ids:
                    writes.append(UpdateMany({"_id": {"$in": ids}}, {"$set": {"online": is_online}}))
            await write_each(self._members, writes)

    async def memberships_of(
        self, user_ids: Collection[str], limit: int, *, after: Membership | None = None
    ) -> list[Membership]:
        """Return at most `limit` joined memberships of at most 500 users.

        With `after` (one user only), continue after that membership.
        """
        further: Document = {"active": True}
        if after is not None:
            further["_id"] = {"$gt": member_key(after.room_id, after.user_id)}
        chosen = narrowed({"userId": {"$in": list(user_ids)}}, further)
        order: list[Document] = [{"$sort": {"_id": 1}}] if len(user_ids) == 1 else []
        page: list[Document] = [{"$limit": limit}, {"$project": {"userId": 1, "roomId": 1, "online": 1}}]
        with translated():
            found = await self._members.aggregate([*chosen, *order, *page], batchSize=limit + 1).to_list(None)
        return [Membership(document["roomId"], document["userId"], bool(document.get("online"))) for document in found]

    # For the readers ------------------------------------------------------------------------------------------------

    async def active_now(self, room_ids: Collection[str]) -> dict[str, int]:
        """Return the number of members online by room; rooms without any are absent."""
        counts: dict[str, int] = {}
        for some in chunks(list(room_ids), COUNTED_AT_ONCE):
            counts |= await self._count_online(some)
        return counts

    async def _count_online(self, room_ids: Sequence[str]) -> dict[str, int]:
        present = {"active": True, "online": True}
        if len(room_ids) == 1:  # the usual case, served by an index on every database
            chosen: list[Document] = [{"$match": {"roomId": room_ids[0], **present}}]
        else:
            chosen = narrowed({"roomId": {"$in": list(room_ids)}}, present)
        with translated():
            counting = self._members.aggregate([*chosen, {"$group": {"_id": "$roomId", "n": {"$sum": 1}}}])
            return {document["_id"]: document["n"] for document in await counting.to_list(None)}

    async def room_ids_of(self, user_id: str) -> list[str]:
        """Return the rooms that a user is a member of."""
        with translated():
            found = await self._members.find({"userId": user_id, "active": True}, {"roomId": 1}).to_list(None)
        return [document["roomId"] for document in found]

    async def member_page(self, room_id: str, skip: int, limit: int) -> tuple[list[Member], int]:
        """Return joined members, the longest-standing first, and their total."""
        chosen = {"roomId": room_id, "active": True}
        with translated():
            cursor = self._members.find(chosen).sort([("joinedAtMs", 1), ("_id", 1)]).skip(skip).limit(limit)
            found, total = await asyncio.gather(cursor.to_list(None), self._members.count_documents(chosen))
        return [to_member(document) for document in found], total

    async def purge_members(self, room_id: str) -> None:
        """Remove all memberships of a room, 500 at a time."""
        await remove_all(self._members, {"roomId": room_id})


async def upsert_newer(collection: Documents, writes: Sequence[UpdateOne]) -> None:
    """Upsert documents that are absent or have a lower `rev`, 500 per call. Raises Unavailable."""
    for some in chunks(writes, DOCUMENTS_MAX):
        try:
            await write_each(collection, some)
        except BulkWriteError as error:
            if not only_duplicates(error):  # the upsert of an outdated write fails on the _id
                raise


def _member_write(entry: LogEntry, effect: MemberEffect) -> UpdateOne:
    chosen = {"_id": member_key(entry.room_id, effect.user_id), "rev": {"$lt": entry.rev}}
    fields = from_effect(entry.room_id, effect, entry.rev)
    return UpdateOne(chosen, {"$set": fields, "$max": {"readSeq": effect.read_seq}}, upsert=True)
