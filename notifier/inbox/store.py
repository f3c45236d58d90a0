"""Inboxes in MongoDB. Look-ups by `_id` use no further fields: with them, SecantusDB scans the collection.

- `notifications`: `_id` notification id; one entry of a user: event, `seq`, time of reading.
- `inboxes`: `_id` user id; the last `seq` that was removed. `sweep` removes expired entries, not the server, because it
  must record that seq: a seq is never reused.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne

from notifier.events.notifications import Entry
from shared.mongo import DOCUMENTS_MAX, Database, Document, Indexes, chunks, conflicting, find_among, translated
from shared.times import MILLISECONDS_PER_DAY

CONCURRENT_READS = 16
ENTRIES_AT_ONCE = 5000
REMOVED_AT_ONCE = 250

INDEXES: Indexes = {
    "notifications": [
        IndexModel([("expiresAtMs", ASCENDING)]),
        IndexModel([("userId", ASCENDING), ("seq", ASCENDING)], unique=True),
        IndexModel([("key", ASCENDING), ("userId", ASCENDING)], unique=True),
        IndexModel(
            [("userId", ASCENDING), ("read", ASCENDING), ("seq", ASCENDING)], partialFilterExpression={"read": False}
        ),
    ],
}


class InboxStore:
    """Reads and writes of inboxes. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database, notification_ttl_days: int) -> None:
        self._entries = database["notifications"]
        self._inboxes = database["inboxes"]
        self._ttl_ms = notification_ttl_days * MILLISECONDS_PER_DAY

    # For the writer --------------------------------------------------------------------------------------------

    async def entries_of(self, key: str, user_ids: Collection[str]) -> list[Entry]:
        """Return the stored entries of these users for an event."""
        entries: list[Entry] = []
        for some in chunks(list(user_ids), DOCUMENTS_MAX):
            with translated():
                found = await self._entries.find({"key": key, "userId": {"$in": some}}).to_list(None)
            entries += map(_to_entry, found)
        return entries

    async def heads(self, user_ids: Collection[str]) -> dict[str, int]:
        """Return the last seq of each of these inboxes; 0 for a new one.

        500 inboxes with few entries cost one query; otherwise each costs a query for its newest entry.
        """
        heads = dict.fromkeys(user_ids, 0)
        for some in chunks(list(user_ids), DOCUMENTS_MAX):
            with translated():
                looking = self._entries.find({"userId": {"$in": some}}, {"userId": 1, "seq": 1, "_id": 0})
                found = await looking.limit(ENTRIES_AT_ONCE).to_list(None)
            if len(found) == ENTRIES_AT_ONCE:
                await self._read_heads_singly(some, heads)
            else:
                for document in found:
                    heads[document["userId"]] = max(heads[document["userId"]], document["seq"])
            # Read last: an entry that is swept in between was counted above.
            for user_id, seq in (await self._last_removed(some)).items():
                heads[user_id] = max(heads[user_id], seq)
        return heads

    async def _read_heads_singly(self, user_ids: Iterable[str], heads: dict[str, int]) -> None:
        waiting = iter(user_ids)

        async def look() -> None:
            for user_id in waiting:
                heads[user_id] = await self._newest(user_id)

        await asyncio.gather(*(look() for _ in range(CONCURRENT_READS)))

    async def _newest(self, user_id: str) -> int:
        with translated():
            newest = await self._entries.find_one({"userId": user_id}, {"seq": 1}, sort=[("seq", DESCENDING)])
        return newest["seq"] if newest else 0

    async def _last_removed(self, user_ids: Collection[str]) -> dict[str, int]:
        found = await find_among(self._inboxes, user_ids)
        return {document["_id"]: document["seq"] for document in found}

    async def insert_entries(self, entries: Sequence[Entry], now_ms: int) -> None:
        """Insert in order up to the first entry that is stored already, so that seqs have no gap.

        Raises WriteConflict if there is one: the entries before it are stored, the rest are not.
        """
        expires_at_ms = now_ms + self._ttl_ms
        for some in chunks(entries, DOCUMENTS_MAX):
            with conflicting("an entry or its seq is stored already"), translated():
                await self._entries.insert_many([_from_entry(entry, expires_at_ms) for entry in some], ordered=True)

    async def sweep(self, now_ms: int) -> int:
        """Remove some of the expired entries, and return their number; repeat until it is 0."""
        with translated():
            chosen = self._entries.find({"expiresAtMs": {"$lte": now_ms}}, {"userId": 1, "seq": 1})
            found = await chosen.sort("expiresAtMs", ASCENDING).limit(REMOVED_AT_ONCE).to_list(None)
        last: dict[str, int] = {}
        for document in found:
            last[document["userId"]] = max(last.get(document["userId"], 0), document["seq"])
        if found:
            writes = [UpdateOne({"_id": user}, {"$max": {"seq": seq}}, upsert=True) for user, seq in last.items()]
            with translated():
                await self._inboxes.bulk_write(writes, ordered=False)
                await self._entries.delete_many({"_id": {"$in": [document["_id"] for document in found]}})
        return len(found)

    # For gateways -------------------------------------------------------------------------------------------

    async def head(self, user_id: str) -> int:
        """Return the last seq of one inbox."""
        newest = await self._newest(user_id)
        return max(newest, (await self._last_removed([user_id])).get(user_id, 0))  # in this order: see `heads`

    async def entries_between(self, user_id: str, first: int, last: int) -> list[Entry]:
        """Return the entries with `first` ≤ seq ≤ `last`, oldest first."""
        with translated():
            cursor = self._entries.find({"userId": user_id, "seq": {"$gte": first, "$lte": last}})
            found = await cursor.sort("seq", ASCENDING).to_list(None)
        return [_to_entry(document) for document in found]

    # For REST --------------------------------------------------------------------------------------------------

    async def entry_page(self, user_id: str, *, unread: bool, skip: int, limit: int) -> tuple[list[Entry], int]:
        """Return entries, newest first, and their total."""
        chosen = _unread(user_id) if unread else {"userId": user_id}
        with translated():
            cursor = self._entries.find(chosen).sort("seq", DESCENDING).skip(skip).limit(limit)
            found, total = await asyncio.gather(cursor.to_list(None), self._entries.count_documents(chosen))
        return [_to_entry(document) for document in found], total

    async def count_unread(self, user_id: str) -> int:
        """Return the number of unread entries."""
        with translated():
            return await self._entries.count_documents(_unread(user_id))

    async def mark_read(self, user_id: str, entry_id: str, now_ms: int) -> Entry | None:
        """Mark an entry as read, if it is unread, and return it; None if it is not the user's."""
        with translated():
            found = await self._entries.find_one({"_id": entry_id})
            if found is None or found["userId"] != user_id:
                return None
            # The first of two concurrent calls determines the time.
            change = {"$set": {"read": True}, "$min": {"readAtMs": now_ms}}
            await self._entries.update_one({"_id": entry_id}, change)
            found = await self._entries.find_one({"_id": entry_id})
        return _to_entry(found) if found else None

    async def mark_all_read(self, user_id: str, through: int, now_ms: int) -> None:
        """Mark all entries with seq ≤ `through` as read."""
        chosen = _unread(user_id) | {"seq": {"$lte": through}}
        with translated():
            while found := await self._entries.find(chosen, {"_id": 1}).limit(DOCUMENTS_MAX).to_list(None):
                ids = [document["_id"] for document in found]
                await self._entries.update_many({"_id": {"$in": ids}}, {"$set": {"read": True, "readAtMs": now_ms}})


def _unread(user_id: str) -> Document:
    return {"userId": user_id, "read": False}


def _from_entry(entry: Entry, expires_at_ms: int) -> Document:
    return {
        "_id": entry.id,
        "key": entry.key,
        "userId": entry.user_id,
        "seq": entry.seq,
        "read": False,
        "expiresAtMs": expires_at_ms,
    }


def _to_entry(document: Document) -> Entry:
    return Entry(document["_id"], document["key"], document["userId"], document["seq"], document.get("readAtMs"))
