"""Presence in MongoDB: the collections `presence` (`_id` user id) and `nodes` (`_id` the name of a gateway's lease).

One sweeper claims a gateway's expired lease. The claim is a lease too: if the sweeper dies, another claims it.
A claimed lease cannot be renewed, so no gateway keeps a lease while its users are taken offline. A swept lease stays
for a minute, ended, and is swept again: a write that was under way all that time, in a frozen process or at a frozen
server, would otherwise leave users online permanently.
"""

from collections.abc import Collection, Mapping

from pymongo import ASCENDING, IndexModel, UpdateMany
from pymongo.errors import BulkWriteError, DuplicateKeyError

from chat_service.people.presence_record import PresenceRecord
from chat_service.storage.member_store import MemberStore
from shared.mongo import (
    ONE_BATCH,
    Database,
    Document,
    Indexes,
    find_among,
    only_duplicates,
    translated,
)

INDEXES: Indexes = {
    "presence": [
        IndexModel([("nodes", ASCENDING)]),
        IndexModel([("unsettledAtMs", ASCENDING)], partialFilterExpression={"unsettledAtMs": {"$gt": 0}}),
    ],
    "nodes": [
        IndexModel([("kind", ASCENDING), ("expiresAtMs", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("isClaimed", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("claimer", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("expiresAtMs", ASCENDING)]),
    ],
}


class PresenceStore:
    """Reads and writes of presence. Every method raises Unavailable when the database is unavailable.

    `unsettledAtMs` and `toldOnline` are the older names of `unannounced_since_ms` and `announced_online`, kept on disk.
    """

    def __init__(self, database: Database) -> None:
        self._presence = database["presence"]
        self._nodes = database["nodes"]
        self._members = MemberStore(database)
        # True if most users of the last batch had no record: then insert first, which saves a call.
        self._expects_new = False

    async def renew(self, lease: str, expires_at_ms: int, *, is_new: bool) -> bool:
        """Renew a gateway's lease; with `is_new` begin one. Return False if there is no lease.

        An ended lease may begin again under the same name, because gateways of unreleased builds after 0.2 do not
        choose a new one.
        """
        try:
            with translated():
                result = await self._nodes.update_one(
                    {"_id": lease, "isClaimed": False},
                    {"$set": {"kind": "gateway", "expiresAtMs": expires_at_ms}},
                    upsert=is_new,
                )
        except DuplicateKeyError:  # the lease is claimed: it may begin again only once it has ended (claimer "")
            again = {"kind": "gateway", "expiresAtMs": expires_at_ms, "isClaimed": False}
            with translated():
                result = await self._nodes.update_one(
                    {"_id": lease, "claimer": ""}, {"$set": again, "$unset": {"claimer": 1}}
                )
            return result.matched_count > 0
        return is_new or result.matched_count > 0

    async def users_of(self, lease: str, limit: int) -> list[str]:
        """Return at most `limit` users with a socket on a gateway."""
        with translated():
            cursor = self._presence.find({"nodes": lease}, {"_id": 1}, batch_size=ONE_BATCH)
            found = await cursor.limit(limit).to_list(None)
        return [document["_id"] for document in found]

    async def change(self, lease: str, came: Collection[str], went: Collection[str], now_ms: int) -> None:
        """Write at most 500 users that came online or went offline on a gateway as unannounced. Idempotent.

        One statement for all: SecantusDB needs 70 ms for 500 departures, and 510 ms for one statement per user; 45 ms
        for 500 arrivals of known users, and 120 ms for 500 upserts.
        """
        inserted = await self._insert_new(lease, came, now_ms) if came and self._expects_new else 0
        known = came if inserted < len(came) else ()
        missing = len(known) + len(went) - await self._update(lease, known, went, now_ms)
        if known and missing and not inserted:
            inserted = await self._insert_new(lease, came, now_ms)
            if inserted < missing:  # another process may have inserted some in between, for another gateway
                await self._update(lease, came, (), now_ms)
        if came:
            self._expects_new = inserted > len(came) // 2

    async def _update(self, lease: str, came: Collection[str], went: Collection[str], now_ms: int) -> int:
        """Update the users that have a record, and return their number."""
        arrival: Document = {"$addToSet": {"nodes": lease}, "$set": {"unsettledAtMs": now_ms}}
        writes = [
            UpdateMany({"_id": {"$in": list(user_ids)}}, change)
            for user_ids, change in ((went, _departure(lease, now_ms)), (came, arrival))
            if user_ids
        ]
        if not writes:
            return 0
        with translated():
            return (await self._presence.bulk_write(writes, ordered=True)).matched_count

    async def _insert_new(self, lease: str, came: Collection[str], now_ms: int) -> int:
        """Insert the users that have no record yet, and return their number."""
        fields: Document = {"nodes": [lease], "unsettledAtMs": now_ms, "toldOnline": False}
        try:
            with translated():
                await self._presence.insert_many([{"_id": user_id, **fields} for user_id in came], ordered=False)
        except BulkWriteError as error:
            if not only_duplicates(error):
                raise
            return int(error.details["nInserted"])
        return len(came)

    async def records(self, user_ids: Collection[str]) -> dict[str, PresenceRecord]:
        """Return the presence of these users; unknown users are absent."""
        return {document["_id"]: to_record(document) for document in await find_among(self._presence, user_ids)}

    async def flag_new_members(self, members: Mapping[tuple[str, str], bool]) -> None:
        """Set the online flag of new memberships, given by (room id, user id).

        `members[key]` is True for a membership without an earlier record: its flag starts as False, so only online
        users cost a write. Presence is read again after each write, until it has not changed meanwhile.
        """
        flagged = {key: False for key, is_first in members.items() if is_first}
        users = {user_id for _, user_id in members}
        while True:
            records = await self.records(users)
            now = {key: key[1] in records and records[key[1]].is_online for key in members}
            changed = {key: is_online for key, is_online in now.items() if flagged.get(key) is not is_online}
            if not changed:
                return
            await self._members.set_online_flags(changed)
            flagged |= changed

    async def has_valid_lease(self, now_ms: int) -> bool:
        """Return whether any gateway has a valid lease."""
        with translated():
            found = await self._nodes.find({"kind": "gateway", "expiresAtMs": {"$gte": now_ms}}).to_list(None)
        return any(not document.get("isClaimed") for document in found)

    async def claim_expired(self, expired_before_ms: int, claimer: str, claimed_until_ms: int) -> str | None:
        """Claim one gateway whose lease or claim has expired, so that this replica sweeps it."""
        return await self._claim("gateway", expired_before_ms, claimer, claimed_until_ms)

    async def claim_ended(self, due_before_ms: int, claimer: str, claimed_until_ms: int) -> str | None:
        """Claim one ended lease whose last sweep is due."""
        return await self._claim("ended", due_before_ms, claimer, claimed_until_ms)

    async def _claim(self, kind: str, before_ms: int, claimer: str, claimed_until_ms: int) -> str | None:
        with translated():
            found = await self._nodes.find_one_and_update(
                {"kind": kind, "expiresAtMs": {"$lt": before_ms}},
                {"$set": {"expiresAtMs": claimed_until_ms, "isClaimed": True, "claimer": claimer}},
            )
        return None if found is None else str(found["_id"])

    async def extend_claim(self, lease: str, claimer: str, claimed_until_ms: int) -> bool:
        """Extend a claim while its sweep goes on; return False if another replica has it now."""
        with translated():
            result = await self._nodes.update_one(
                {"_id": lease, "claimer": claimer}, {"$set": {"expiresAtMs": claimed_until_ms}}
            )
        return result.matched_count > 0

    async def end(self, lease: str, last_sweep_at_ms: int) -> None:
        """Record that a claimed lease was swept, and when to sweep it again. Until then its claimer is ""."""
        with translated():
            await self._nodes.update_one(
                {"_id": lease, "isClaimed": True},
                {"$set": {"kind": "ended", "expiresAtMs": last_sweep_at_ms, "claimer": ""}},
            )

    async def forget(self, lease: str) -> None:
        """Remove a lease after its last sweep."""
        with translated():
            await self._nodes.delete_one({"_id": lease, "isClaimed": True})


def _departure(lease: str, now_ms: int) -> list[Document]:
    """Return the update for users that went offline on a gateway; users that were not online there stay unchanged."""
    nodes = {"$ifNull": ["$nodes", []]}
    is_there = {"$in": [lease, nodes]}
    stamped = {
        "unsettledAtMs": {"$cond": [is_there, now_ms, {"$ifNull": ["$unsettledAtMs", 0]}]},
        "lastSeenAtMs": {"$cond": [is_there, now_ms, {"$ifNull": ["$lastSeenAtMs", None]}]},
    }
    return [{"$set": stamped}, {"$set": {"nodes": {"$setDifference": [nodes, [lease]]}}}]


def to_record(document: Document) -> PresenceRecord:
    """Return the record of a document in `presence`."""
    return PresenceRecord(
        user_id=document["_id"],
        is_online=bool(document.get("nodes")),
        announced_online=document.get("toldOnline", False),
        last_seen_at_ms=document.get("lastSeenAtMs"),
        unannounced_since_ms=document.get("unsettledAtMs", 0),
    )
