"""The store of the presence announcer.

Unannounced users in `presence`, the pending counts of large rooms in `room_presence` (`_id` room id), and the
announcer's lease in `nodes`.
"""

from collections.abc import Collection
from typing import NamedTuple

from pymongo import ASCENDING, IndexModel, UpdateMany, UpdateOne
from pymongo.errors import DuplicateKeyError

from chat_service.people.announcements import RoomAudience
from chat_service.people.presence_record import PresenceRecord
from chat_service.people.presence_store import to_record
from chat_service.rooms.room import Membership
from chat_service.storage.member_store import MemberStore
from shared.mongo import ONE_BATCH, Database, Document, Indexes, find_among, translated, write_each

INDEXES: Indexes = {"room_presence": [IndexModel([("dueAtMs", ASCENDING)])]}

LEASE_ID = "presence_announcer"


class LeaseHeld(NamedTuple):
    """The announcer's lease, held by this replica.

    `is_taken_over`: another replica held it before, and may have announced another state of the users `in_doubt`.
    """

    is_taken_over: bool
    in_doubt: Collection[str] = ()


class AnnouncementStore:
    """Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._presence = database["presence"]
        self._nodes = database["nodes"]
        self._counts = database["room_presence"]
        self._rooms = database["room_records"]
        self._members = MemberStore(database)

    # The announcer's lease ------------------------------------------------------------------------------------------

    async def hold_lease(self, holder: str, now_ms: int, expires_at_ms: int) -> LeaseHeld | None:
        """Take or renew the lease of the one announcer; return None if another replica has it."""
        taken = {"$set": {"kind": "announcer", "claimer": holder, "expiresAtMs": expires_at_ms}}
        with translated():
            renewed = await self._nodes.update_one({"_id": LEASE_ID, "claimer": holder}, taken)
        if renewed.matched_count:
            return LeaseHeld(is_taken_over=False)
        try:
            with translated():
                expired = {"_id": LEASE_ID, "expiresAtMs": {"$lt": now_ms}}
                before = await self._nodes.find_one_and_update(expired, taken, upsert=True)
        except DuplicateKeyError:
            return None
        return LeaseHeld(False) if before is None else LeaseHeld(True, before.get("inDoubt", ()))

    async def begin(self, holder: str, user_ids: Collection[str]) -> bool:
        """Record in the lease, before the first delivery, which users' announcement has begun.

        Return False if the lease is lost. A note in each user's record would take SecantusDB 59 ms for 500 users, a
        fourth of their announcement.
        """
        with translated():
            noted = await self._nodes.update_one(
                {"_id": LEASE_ID, "claimer": holder}, {"$set": {"inDoubt": list(user_ids)}}
            )
        return noted.matched_count > 0

    async def has_pending(self, before_ms: int) -> bool:
        """Return whether an announcement or a count has been pending since before that time."""
        with translated():
            chosen = {"unsettledAtMs": {"$gt": 0, "$lt": before_ms}}
            if await self._presence.find_one(chosen, {"_id": 1}) is not None:
                return True
            return await self._counts.find_one({"dueAtMs": {"$lt": before_ms}}, {"_id": 1}) is not None

    # Users ----------------------------------------------------------------------------------------------------------

    async def unannounced(self, limit: int) -> list[PresenceRecord]:
        """Return users with an unannounced change, longest-waiting first."""
        with translated():
            cursor = self._presence.find({"unsettledAtMs": {"$gt": 0}}, batch_size=ONE_BATCH)
            found = await cursor.sort("unsettledAtMs", ASCENDING).limit(limit).to_list(None)
        return [to_record(document) for document in found]

    async def finish(self, records: Collection[PresenceRecord], now_ms: int) -> None:
        """Record the announced state. Users whose state has changed since are marked unannounced again.

        A stalled announcer may have announced an older state after its successor had announced the current one.
        """
        is_online = {"$gt": [{"$size": {"$ifNull": ["$nodes", []]}}, 0]}
        writes: list[UpdateOne | UpdateMany] = []
        for announced in (True, False):
            user_ids = [record.user_id for record in records if record.is_online is announced]
            if user_ids:
                since = {"$cond": [{"$gt": ["$unsettledAtMs", 0]}, "$unsettledAtMs", now_ms]}
                left = {"$cond": [{"$eq": [is_online, announced]}, 0, since]}
                writes.append(
                    UpdateMany({"_id": {"$in": user_ids}}, [{"$set": {"toldOnline": announced, "unsettledAtMs": left}}])
                )
        await write_each(self._presence, writes)

    # Memberships and rooms ------------------------------------------------------------------------------------------

    async def memberships(
        self, user_ids: Collection[str], limit: int, *, after: Membership | None = None
    ) -> list[Membership]:
        """Return at most `limit` joined memberships of these users. With `after` (one user only), continue after it."""
        return await self._members.memberships_of(user_ids, limit, after=after)

    async def set_flags(self, online: Collection[Membership], offline: Collection[Membership]) -> None:
        """Set the online flag of at most 500 memberships: `activeNow` counts those whose flag is True."""
        flags = {(one.room_id, one.user_id): True for one in online}
        flags |= {(one.room_id, one.user_id): False for one in offline}
        await self._members.set_online_flags(flags)

    async def audiences(self, room_ids: Collection[str]) -> dict[str, RoomAudience]:
        """Return the audiences of rooms by id; rooms without a record are absent."""
        found = await find_among(self._rooms, room_ids, projection={"memberCount": 1, "direct": 1})
        return {
            document["_id"]: RoomAudience(document["memberCount"], tuple(document["direct"] or ()))
            for document in found
        }

    # Counts of large rooms ------------------------------------------------------------------------------------------

    async def add_pending_counts(self, due_ms: dict[str, int]) -> None:
        """Record pending counts of rooms, and when they are due; a count already pending keeps its time."""
        await write_each(
            self._counts,
            [
                UpdateOne({"_id": room_id}, {"$setOnInsert": {"dueAtMs": at_ms}}, upsert=True)
                for room_id, at_ms in due_ms.items()
            ],
        )

    async def pending_counts(self) -> dict[str, int]:
        """Return the due times of pending counts by room: large rooms that changed in the last 5 s."""
        with translated():
            found = await self._counts.find({}).to_list(None)
        return {document["_id"]: document["dueAtMs"] for document in found}

    async def active_now(self, room_ids: Collection[str]) -> dict[str, int]:
        """Return the number of members online by room; rooms without any are absent."""
        return await self._members.active_now(room_ids)

    async def counts_sent(self, room_ids: Collection[str]) -> None:
        """Remove the records of counts that were sent, at most 500."""
        chosen: Document = {"_id": {"$in": list(room_ids)}}
        with translated():
            await self._counts.delete_many(chosen)
