"""Memberships in MongoDB: every query on the collection `members`.

`_id` is room id/user id. A removed member stays as a document with `removed` set, so that its `term` still fences off a
stale owner of the partition. `online` follows the user's presence, so that members online can be counted by index.
"""

import asyncio
from collections.abc import Collection

import msgspec
from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.errors import BulkWriteError

from chat_service.documents import member_key, to_member
from chat_service.rooms import Member
from shared.errors import StaleOwner
from shared.mongo import Database, Document, Indexes, narrowed, only_duplicates, translated

INDEXES: Indexes = {
    "members": [
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("joinedAtMs", ASCENDING), ("_id", ASCENDING)]),
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("online", ASCENDING)]),
        IndexModel([("userId", ASCENDING), ("active", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("term", ASCENDING)]),
    ],
}

PURGE_AT_ONCE = 1000


class MemberStore:
    """Reads and writes of memberships. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._members = database["members"]

    # For the writer -------------------------------------------------------------------------------------------------

    async def members(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], Member]:
        """Return the memberships that exist, active or not, by (room id, user id)."""
        ids = [member_key(room_id, user_id) for room_id, user_id in keys]
        with translated():
            found = await self._members.find({"_id": {"$in": ids}}).to_list(None)
        kept = (document for document in found if not document.get("removed"))
        return {(document["roomId"], document["userId"]): to_member(document) for document in kept}

    async def put_members(self, changed: dict[tuple[str, str], Member | None], term: int) -> None:
        """Write memberships as they are now; None removes one. Idempotent.

        Raises StaleOwner if an owner of a later term has written one of them, so that a stale decision undoes nothing.
        """
        writes = [_member_write(key, member, term) for key, member in changed.items()]
        if writes:
            try:
                with translated():
                    await self._members.bulk_write(writes, ordered=False)
            except BulkWriteError as error:
                if only_duplicates(error):
                    raise StaleOwner("a later owner has written the membership") from error
                raise

    async def put_read_marks(self, marks: dict[tuple[str, str], int]) -> None:
        """Move read marks forward, never back."""
        if marks:
            writes = [UpdateOne({"_id": member_key(*key)}, {"$max": {"readSeq": seq}}) for key, seq in marks.items()]
            with translated():
                await self._members.bulk_write(writes, ordered=False)

    async def add_missing_terms(self) -> None:
        """Give memberships of a version without terms the term 0, so that any owner may write them."""
        first = {"$set": {"term": 0, "removed": False}}
        with translated():
            await self._members.update_many({"term": {"$exists": False}}, first)

    # For presence ---------------------------------------------------------------------------------------------------

    async def mark_users(self, user_ids: Collection[str], *, is_online: bool) -> None:
        """Mark all memberships of these users online or offline."""
        with translated():
            await self._members.update_many({"userId": {"$in": list(user_ids)}}, {"$set": {"online": is_online}})

    async def mark_members(self, keys: Collection[tuple[str, str]], *, is_online: bool) -> None:
        """Mark these memberships, given by (room id, user id), online or offline."""
        ids = [member_key(room_id, user_id) for room_id, user_id in keys]
        with translated():
            await self._members.update_many({"_id": {"$in": ids}}, {"$set": {"online": is_online}})

    async def memberships_of(self, user_ids: Collection[str]) -> list[tuple[str, str]]:
        """Return the active memberships of these users as (room id, user id)."""
        chosen = narrowed({"userId": {"$in": list(user_ids)}}, {"active": True})
        with translated():
            found = await self._members.aggregate([*chosen, {"$project": {"userId": 1, "roomId": 1}}]).to_list(None)
        return [(document["roomId"], document["userId"]) for document in found]

    # For the readers ------------------------------------------------------------------------------------------------

    async def active_now(self, room_ids: Collection[str]) -> dict[str, int]:
        """Return the number of members online by room; rooms without any are absent."""
        present = {"active": True, "online": True}
        if len(room_ids) == 1:  # the usual case, fully indexed on every database
            chosen: list[Document] = [{"$match": {"roomId": next(iter(room_ids)), **present}}]
        else:
            chosen = narrowed({"roomId": {"$in": list(room_ids)}}, present)
        with translated():
            counting = self._members.aggregate([*chosen, {"$group": {"_id": "$roomId", "n": {"$sum": 1}}}])
            counts = await counting.to_list(None)
        return {document["_id"]: document["n"] for document in counts}

    async def room_ids_of(self, user_id: str) -> list[str]:
        """Return the rooms that a user is a member of."""
        with translated():
            found = await self._members.find({"userId": user_id, "active": True}, {"roomId": 1}).to_list(None)
        return [document["roomId"] for document in found]

    async def member_page(self, room_id: str, skip: int, limit: int) -> tuple[list[Member], int]:
        """Return active members, the longest-standing first, and their total."""
        chosen = {"roomId": room_id, "active": True}
        with translated():
            cursor = self._members.find(chosen).sort([("joinedAtMs", 1), ("_id", 1)]).skip(skip).limit(limit)
            found, total = await asyncio.gather(cursor.to_list(None), self._members.count_documents(chosen))
        return [to_member(document) for document in found], total

    async def count(self, room_id: str) -> int:
        """Return the number of active members."""
        with translated():
            return await self._members.count_documents({"roomId": room_id, "active": True})

    async def purge_members(self, room_id: str) -> None:
        """Remove all memberships of a room, a thousand at a time."""
        with translated():
            while found := await self._members.find({"roomId": room_id}, {"_id": 1}).limit(PURGE_AT_ONCE).to_list(None):
                await self._members.delete_many({"_id": {"$in": [document["_id"] for document in found]}})


def _member_write(key: tuple[str, str], member: Member | None, term: int) -> UpdateOne:
    """Return the update of one membership. When the filter rejects a newer term, the upsert hits its `_id`."""
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
