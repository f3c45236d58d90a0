"""Presence in MongoDB: `presence` (`_id` user id), `nodes` (`_id` gateway node id), and `online` in `members`.

A gateway's lease that has run out is claimed by one sweeper, and the claim is a lease too: should the sweeper die,
another claims it anew. A claimed lease can no longer be renewed, so that no gateway keeps one whose users are being
taken offline.
"""

from collections.abc import Collection

import msgspec
from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.errors import DuplicateKeyError

from chat_service.member_store import MemberStore
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
    """`told_online` is what the rooms were told last; `unsettled_at_ms` 0 when that is how it is."""

    user_id: str
    is_online: bool
    told_online: bool
    last_seen_at_ms: int | None
    unsettled_at_ms: int


class PresenceStore:
    """Every method raises Unavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._presence = database["presence"]
        self._nodes = database["nodes"]
        self._members = MemberStore(database)
        self._rooms = database["rooms"]

    async def renew(self, node_id: str, expires_at_ms: int, *, is_new: bool) -> bool:
        """Renew a gateway's lease; `is_new` begins one. False if there is none, or none any more."""
        try:
            with translated():
                result = await self._nodes.update_one(
                    {"_id": node_id, "isClaimed": False},
                    {"$set": {"kind": "gateway", "expiresAtMs": expires_at_ms}},
                    upsert=is_new,
                )
        except DuplicateKeyError:  # it is claimed, and free again as soon as its users are offline
            return False
        return is_new or result.matched_count > 0

    async def users_of(self, node_id: str) -> set[str]:
        """The users with a socket on a gateway."""
        with translated():
            found = await self._presence.find({"nodes": node_id}, {"_id": 1}).to_list(None)
        return {document["_id"] for document in found}

    async def change(self, node_id: str, came: Collection[str], went: Collection[str], now_ms: int) -> None:
        """Note who came to and went from a gateway; all of them are unsettled until told."""
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
        """What is known of these users."""
        with translated():
            found = await self._presence.find({"_id": {"$in": list(user_ids)}}).to_list(None)
        return {document["_id"]: _to_record(document) for document in found}

    async def unsettled(self, user_ids: Collection[str]) -> list[PresenceRecord]:
        """Those of the users that are unsettled."""
        return [record for record in (await self.records(user_ids)).values() if record.unsettled_at_ms]

    async def unsettled_before(self, at_ms: int, limit: int) -> list[PresenceRecord]:
        """Who has been unsettled since before `at_ms`."""
        with translated():
            cursor = self._presence.find({"unsettledAtMs": {"$gt": 0, "$lt": at_ms}}).limit(limit)
            return [_to_record(document) for document in await cursor.to_list(None)]

    async def mark_members(self, records: Collection[PresenceRecord]) -> None:
        """Mark the users' memberships online or offline, as `activeNow` counts them."""
        for is_online in (True, False):
            users = [record.user_id for record in records if record.is_online is is_online]
            if users:
                await self._members.mark_users(users, is_online=is_online)

    async def mark_new_members(self, members: Collection[tuple[str, str]]) -> None:
        """Mark fresh memberships, (room id, user id), as their users are; again if that changes meanwhile."""
        told: dict[str, bool] | None = None
        users = {user_id for _, user_id in members}
        while (now := {user: record.is_online for user, record in (await self.records(users)).items()}) != told:
            told = now
            for is_online in (True, False):
                some = [(room, user) for room, user in members if now.get(user, False) is is_online]
                await self._members.mark_members(some, is_online=is_online)

    async def channels_of(self, user_ids: Collection[str]) -> dict[str, tuple[list[str], list[str]]]:
        """By user: the rooms that they are a member of, and the users that they have a direct room with."""
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

    async def settled(self, records: Collection[PresenceRecord]) -> None:
        """The rooms have been told; unless the state has changed again since it was read."""
        writes = [
            UpdateOne(
                {"_id": record.user_id, "unsettledAtMs": record.unsettled_at_ms},
                {"$set": {"toldOnline": record.is_online, "unsettledAtMs": 0}},
            )
            for record in records
        ]
        if writes:
            with translated():
                await self._presence.bulk_write(writes, ordered=False)

    async def any_lease_holds(self, now_ms: int) -> bool:
        """Whether any gateway has been heard of within its lease."""
        with translated():
            found = await self._nodes.find({"kind": "gateway", "expiresAtMs": {"$gte": now_ms}}).to_list(None)
        return any(not document.get("isClaimed") for document in found)

    async def claim_expired(self, expired_before_ms: int, claimer: str, claimed_until_ms: int) -> str | None:
        """Claim one gateway whose lease, or whose claim, has run out, so that one replica sweeps it."""
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
        told_online=document.get("toldOnline", False),
        last_seen_at_ms=document.get("lastSeenAtMs"),
        unsettled_at_ms=document.get("unsettledAtMs", 0),
    )
