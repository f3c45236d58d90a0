"""Presence in MongoDB: the collections `presence` (`_id` user id) and `nodes` (`_id` gateway node id).

One sweeper claims a gateway's expired lease. The claim is a lease too: if the sweeper dies, another claims it.
A claimed lease cannot be renewed, so no gateway keeps a lease while its users are taken offline.
"""

from collections.abc import Collection

import msgspec
from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.errors import DuplicateKeyError

from chat_service.storage.member_store import MemberStore
from shared.mongo import Database, Document, Indexes, narrowed, translated

INDEXES: Indexes = {
    "presence": [
        IndexModel([("nodes", ASCENDING)]),
        IndexModel([("unsettledAtMs", ASCENDING)], partialFilterExpression={"unsettledAtMs": {"$gt": 0}}),
        IndexModel([("_id", ASCENDING), ("nodes", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("unsettledAtMs", ASCENDING)]),
    ],
    "nodes": [
        IndexModel([("kind", ASCENDING), ("expiresAtMs", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("isClaimed", ASCENDING)]),
    ],
}


class PresenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A user's presence. `announced_online` was sent to the rooms; `unannounced_since_ms` is 0 if it is current."""

    user_id: str
    is_online: bool
    announced_online: bool
    last_seen_at_ms: int | None
    unannounced_since_ms: int


class PresenceStore:
    """Reads and writes of presence. Every method raises Unavailable when the database is unavailable.

    `unsettledAtMs` and `toldOnline` are the older names of `unannounced_since_ms` and `announced_online`, kept on disk.
    """

    def __init__(self, database: Database) -> None:
        self._presence = database["presence"]
        self._nodes = database["nodes"]
        self._members = MemberStore(database)
        self._rooms = database["room_records"]

    async def renew(self, node_id: str, expires_at_ms: int, *, is_new: bool) -> bool:
        """Renew a gateway's lease; with `is_new` begin one. Return False if there is no lease."""
        try:
            with translated():
                result = await self._nodes.update_one(
                    {"_id": node_id, "isClaimed": False},
                    {"$set": {"kind": "gateway", "expiresAtMs": expires_at_ms}},
                    upsert=is_new,
                )
        except DuplicateKeyError:  # claimed, until its users are offline
            return False
        return is_new or result.matched_count > 0

    async def users_of(self, node_id: str) -> set[str]:
        """Return the users with a socket on a gateway."""
        with translated():
            found = await self._presence.find({"nodes": node_id}, {"_id": 1}).to_list(None)
        return {document["_id"] for document in found}

    async def change(self, node_id: str, came: Collection[str], went: Collection[str], now_ms: int) -> None:
        """Write the users that came online or went offline on a gateway, as unannounced."""
        mark: Document = {"unsettledAtMs": now_ms}
        writes = [
            UpdateOne(
                {"_id": user_id},
                {"$addToSet": {"nodes": node_id}, "$set": mark, "$setOnInsert": {"toldOnline": False}},
                upsert=True,
            )
            for user_id in came
        ]
        writes += [
            UpdateOne(
                {"_id": user_id, "nodes": node_id},
                {"$pull": {"nodes": node_id}, "$set": mark | {"lastSeenAtMs": now_ms}},
            )
            for user_id in went
        ]
        with translated():
            await self._presence.bulk_write(writes, ordered=False)

    async def records(self, user_ids: Collection[str]) -> dict[str, PresenceRecord]:
        """Return the presence of these users, as far as it is known."""
        with translated():
            found = await self._presence.find({"_id": {"$in": list(user_ids)}}).to_list(None)
        return {document["_id"]: _to_record(document) for document in found}

    async def unannounced(self, user_ids: Collection[str]) -> list[PresenceRecord]:
        """Return the unannounced ones among these users."""
        return [record for record in (await self.records(user_ids)).values() if record.unannounced_since_ms]

    async def unannounced_before(self, at_ms: int, limit: int) -> list[PresenceRecord]:
        """Return users that have been unannounced since before `at_ms`."""
        with translated():
            cursor = self._presence.find({"unsettledAtMs": {"$gt": 0, "$lt": at_ms}}).limit(limit)
            return [_to_record(document) for document in await cursor.to_list(None)]

    async def mark_members(self, records: Collection[PresenceRecord]) -> None:
        """Mark the users' memberships online or offline, so that `activeNow` counts them."""
        for is_online in (True, False):
            users = [record.user_id for record in records if record.is_online is is_online]
            if users:
                await self._members.mark_users(users, is_online=is_online)

    async def mark_new_members(self, members: Collection[tuple[str, str]]) -> None:
        """Mark new memberships, (room id, user id), with their users' presence.

        Repeats this if a user's presence changes in the meantime.
        """
        marked: dict[str, bool] | None = None
        users = {user_id for _, user_id in members}
        while (now := {user: record.is_online for user, record in (await self.records(users)).items()}) != marked:
            marked = now
            for is_online in (True, False):
                some = [(room, user) for room, user in members if now.get(user, False) is is_online]
                await self._members.mark_members(some, is_online=is_online)

    async def channels_of(self, user_ids: Collection[str]) -> dict[str, tuple[list[str], list[str]]]:
        """Return by user the rooms that they are a member of, and their partners in direct rooms."""
        members = await self._members.memberships_of(user_ids)
        room_ids = list({room_id for room_id, _ in members})
        direct = narrowed({"_id": {"$in": room_ids}}, {"direct": {"$ne": None}})
        with translated():
            directs = await self._rooms.aggregate([*direct, {"$project": {"direct": 1}}]).to_list(None)
        pairs: dict[str, list[str]] = {document["_id"]: document["direct"] for document in directs}
        audience: dict[str, tuple[list[str], list[str]]] = {user_id: ([], []) for user_id in user_ids}
        for room_id, user_id in members:
            own_rooms, partners = audience[user_id]
            if (pair := pairs.get(room_id)) is None:
                own_rooms.append(room_id)
            else:
                partners += [other for other in pair if other != user_id]
        return audience

    async def mark_announced(self, records: Collection[PresenceRecord]) -> None:
        """Clear the marks of these users, unless their state has changed since it was read."""
        writes = [
            UpdateOne(
                {"_id": record.user_id, "unsettledAtMs": record.unannounced_since_ms},
                {"$set": {"toldOnline": record.is_online, "unsettledAtMs": 0}},
            )
            for record in records
        ]
        if writes:
            with translated():
                await self._presence.bulk_write(writes, ordered=False)

    async def has_valid_lease(self, now_ms: int) -> bool:
        """Return whether any gateway has a valid lease."""
        with translated():
            found = await self._nodes.find({"kind": "gateway", "expiresAtMs": {"$gte": now_ms}}).to_list(None)
        return any(not document.get("isClaimed") for document in found)

    async def claim_expired(self, expired_before_ms: int, claimer: str, claimed_until_ms: int) -> str | None:
        """Claim one gateway whose lease or claim has expired, so that this replica sweeps it."""
        with translated():
            found = await self._nodes.find_one_and_update(
                {"kind": "gateway", "expiresAtMs": {"$lt": expired_before_ms}},
                {"$set": {"expiresAtMs": claimed_until_ms, "isClaimed": True, "claimer": claimer}},
            )
        return None if found is None else str(found["_id"])

    async def forget(self, node_id: str) -> None:
        """Remove a swept gateway; it may then begin a new lease."""
        with translated():
            await self._nodes.delete_one({"_id": node_id, "isClaimed": True})


def _to_record(document: Document) -> PresenceRecord:
    return PresenceRecord(
        user_id=document["_id"],
        is_online=bool(document.get("nodes")),
        announced_online=document.get("toldOnline", False),
        last_seen_at_ms=document.get("lastSeenAtMs"),
        unannounced_since_ms=document.get("unsettledAtMs", 0),
    )
