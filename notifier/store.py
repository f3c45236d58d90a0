"""What notifier keeps in MongoDB, and every query it makes. The only module of it that knows the driver.

Collections:
- `events`: `_id` event key; whether it is `done`, and for inboxes its notice, once for all its users.
- `notifications`: `_id` notification id; a user's entry: which event, which `seq`, read or not.
- `inboxes`: `_id` user id; a `seq` up to which all were given out: the last that was removed, or a mark, every 256th.
  Entries expire, but no seq is given twice: so it is `sweep` that removes them, not the server.

Times are integers, milliseconds since 1970; only the `expiresAt` of events is a date, as the server removes by it.
Every operation is bounded, by 1,000 documents or so: one that took longer than its deadline would never succeed.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.errors import BulkWriteError

from notifier import metrics
from notifier.notices import Entry, Notice, Record
from shared import logs
from shared.errors import RealtimeError, Unavailable
from shared.mongo import Database, Document, Indexes, translated
from shared.times import MILLISECONDS_PER_DAY

log = logs.get(__name__)

T = TypeVar("T")

DUPLICATE_KEY = 11000
IDEMPOTENT_FOR_DAYS = 7
AT_ONCE = 1000
CONFLICTS_MAX = 10
MARKED_EVERY = 256
SHORT_AT_ONCE = 250
CONCURRENT_READS = 16
RECORD_MARGIN_DAYS = 7  # a notice outlives its entries, which may be written and swept later


INDEXES: Indexes = {
    "events": [IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0)],
    "notifications": [
        IndexModel([("expiresAtMs", ASCENDING)]),
        IndexModel([("userId", ASCENDING), ("seq", ASCENDING)], unique=True),
        IndexModel([("key", ASCENDING), ("userId", ASCENDING)], unique=True),
        IndexModel(
            [("userId", ASCENDING), ("read", ASCENDING), ("seq", ASCENDING)], partialFilterExpression={"read": False}
        ),
    ],
}


class Conflict(RealtimeError):
    """Something on disk is not as it was believed to be: another writer, or an earlier try. Load again, plan again."""


class NotifierStore:
    """Reads and writes of events and inboxes. Every method raises Unavailable when the database is away."""

    def __init__(self, database: Database, notification_ttl_days: int) -> None:
        self._events = database["events"]
        self._entries = database["notifications"]
        self._inboxes = database["inboxes"]
        self._ttl_ms = notification_ttl_days * MILLISECONDS_PER_DAY

    # Events ---------------------------------------------------------------------------------------------------------

    async def records(self, keys: Collection[str]) -> dict[str, Record]:
        """What is known of these events."""
        with translated():
            found = await self._events.find({"_id": {"$in": list(keys)}}).to_list(None)
        return {document["_id"]: _to_record(document) for document in found}

    async def insert_records(self, records: Sequence[Record], now_ms: int) -> None:
        """Note that these events are begun. Raises Conflict if one is known already."""
        if records:
            with conflicting("an event is known already"), translated():
                await self._events.insert_many([self._from_record(record, now_ms) for record in records], ordered=False)

    async def mark_done(self, keys: Collection[str]) -> None:
        """Note that these events are delivered: they are passed over from now on."""
        if keys:
            with translated():
                await self._events.update_many({"_id": {"$in": list(keys)}}, {"$set": {"done": True}})

    async def notices(self, keys: Collection[str]) -> dict[str, Notice]:
        """The notices of events that went to inboxes."""
        records = await self.records(keys)
        return {key: record.notice for key, record in records.items() if record.notice is not None}

    def _from_record(self, record: Record, now_ms: int) -> Document:
        document: Document = {"_id": record.key, "done": record.is_done, "createdAtMs": record.created_at_ms}
        if record.notice is None:
            return document | {"expiresAt": date(now_ms + IDEMPOTENT_FOR_DAYS * MILLISECONDS_PER_DAY)}
        kept_until_ms = now_ms + self._ttl_ms + RECORD_MARGIN_DAYS * MILLISECONDS_PER_DAY
        return document | {"type": record.notice.type, "data": record.notice.data, "expiresAt": date(kept_until_ms)}

    # Inboxes: the writer --------------------------------------------------------------------------------------------

    async def entries_of(self, keys: Collection[str], user_ids: Collection[str]) -> list[Entry]:
        """The entries that these users have of these events already."""
        if not keys:
            return []
        entries: list[Entry] = []
        for some in _chunks(list(user_ids), AT_ONCE):
            with translated():
                found = await self._entries.find({"key": {"$in": list(keys)}, "userId": {"$in": some}}).to_list(None)
            entries += map(_to_entry, found)
        return entries

    async def heads(self, user_ids: Collection[str]) -> dict[str, int]:
        """The last seq of each of these inboxes; 0 for one that does not exist yet.

        Short inboxes, those without a mark, are read many at once; a longer one by a look of its own at its newest
        entry: 10,000 inboxes take 0.5 s when all are short, 4 s when none is.
        """
        heads = dict.fromkeys(user_ids, 0)
        for some in _chunks(list(user_ids), AT_ONCE):
            marked = await self._marks(some)
            heads |= await self._newest_of_short(set(some) - marked.keys()) | await self._newest_of_long(marked)
            # Again, and last: what is swept in between has been counted before it went.
            for user_id, seq in (await self._marks(some)).items():
                heads[user_id] = max(heads[user_id], seq)
        return heads

    async def _newest_of_short(self, user_ids: Collection[str]) -> dict[str, int]:
        heads: dict[str, int] = {}
        grouping = {"$group": {"_id": "$userId", "seq": {"$max": "$seq"}}}
        for some in _chunks(list(user_ids), SHORT_AT_ONCE):
            with translated():
                found = await self._entries.aggregate([{"$match": {"userId": {"$in": some}}}, grouping]).to_list(None)
            heads |= {document["_id"]: document["seq"] for document in found}
        return heads

    async def _newest_of_long(self, user_ids: Collection[str]) -> dict[str, int]:
        heads: dict[str, int] = {}
        waiting = iter(user_ids)

        async def load() -> None:
            for user_id in waiting:
                heads[user_id] = await self._newest(user_id)

        await asyncio.gather(*(load() for _ in range(min(CONCURRENT_READS, len(user_ids)))))
        return heads

    async def _newest(self, user_id: str) -> int:
        with translated():
            newest = await self._entries.find_one({"userId": user_id}, {"seq": 1}, sort=[("seq", DESCENDING)])
        return newest["seq"] if newest else 0

    async def _marks(self, user_ids: Collection[str]) -> dict[str, int]:
        with translated():
            found = await self._inboxes.find({"_id": {"$in": list(user_ids)}}).to_list(None)
        return {document["_id"]: document["seq"] for document in found}

    async def insert_entries(self, entries: Sequence[Entry], now_ms: int) -> None:
        """Insert in order, stopping at the first that is already there, so that no seq stays empty.

        Raises Conflict then: what came before it is stored, the rest is not.
        """
        expires_at_ms = now_ms + self._ttl_ms
        for some in _chunks(entries, AT_ONCE):
            with conflicting("an entry or its seq is there already"), translated():
                await self._entries.insert_many([_from_entry(entry, expires_at_ms) for entry in some], ordered=True)
            await self._mark({entry.user_id: entry.seq for entry in some if _is_marked(entry)})

    async def _mark(self, seqs: Mapping[str, int]) -> None:
        """Note that these seqs, and all before them, were given out."""
        if seqs:
            writes = [UpdateOne({"_id": user}, {"$max": {"seq": seq}}, upsert=True) for user, seq in seqs.items()]
            with translated():
                await self._inboxes.bulk_write(writes, ordered=False)

    async def sweep(self, now_ms: int) -> int:
        """Remove some of the entries that have expired; returns how many: call it again until that is 0."""
        with translated():
            chosen = self._entries.find({"expiresAtMs": {"$lte": now_ms}}, {"userId": 1, "seq": 1})
            found = await chosen.sort("expiresAtMs", ASCENDING).limit(AT_ONCE).to_list(None)
        last: dict[str, int] = {}
        for document in found:
            last[document["userId"]] = max(last.get(document["userId"], 0), document["seq"])
        await self._mark(last)
        if found:
            with translated():
                await self._entries.delete_many({"_id": {"$in": [document["_id"] for document in found]}})
        return len(found)

    # Inboxes: the readers -------------------------------------------------------------------------------------------

    async def head(self, user_id: str) -> int:
        """The last seq of one inbox."""
        newest = await self._newest(user_id)
        return max(newest, (await self._marks([user_id])).get(user_id, 0))  # in this order: see `heads`

    async def entries_between(self, user_id: str, first: int, last: int) -> list[Entry]:
        """The entries with `first` ≤ seq ≤ `last`, oldest first."""
        with translated():
            cursor = self._entries.find({"userId": user_id, "seq": {"$gte": first, "$lte": last}})
            found = await cursor.sort("seq", ASCENDING).to_list(None)
        return [_to_entry(document) for document in found]

    # Inboxes: REST --------------------------------------------------------------------------------------------------

    async def entry_page(self, user_id: str, *, unread: bool, skip: int, limit: int) -> tuple[list[Entry], int]:
        """Entries, newest first, and how many there are."""
        chosen = _unread(user_id) if unread else {"userId": user_id}
        with translated():
            cursor = self._entries.find(chosen).sort("seq", DESCENDING).skip(skip).limit(limit)
            found, total = await asyncio.gather(cursor.to_list(None), self._entries.count_documents(chosen))
        return [_to_entry(document) for document in found], total

    async def count_unread(self, user_id: str) -> int:
        """How many entries the user has not read."""
        with translated():
            return await self._entries.count_documents(_unread(user_id))

    async def mark_read(self, user_id: str, entry_id: str, now_ms: int) -> Entry | None:
        """Mark an entry as read unless it is, and return it; None if it is not the user's."""
        chosen = {"_id": entry_id, "userId": user_id}
        with translated():
            await self._entries.update_one(chosen | {"read": False}, {"$set": {"read": True, "readAtMs": now_ms}})
            found = await self._entries.find_one(chosen)
        return _to_entry(found) if found else None

    async def mark_all_read(self, user_id: str, through: int, now_ms: int) -> None:
        """Mark all entries with seq ≤ `through` as read."""
        chosen = _unread(user_id) | {"seq": {"$lte": through}}
        with translated():
            while found := await self._entries.find(chosen, {"_id": 1}).limit(AT_ONCE).to_list(None):
                ids = [document["_id"] for document in found]
                await self._entries.update_many({"_id": {"$in": ids}}, {"$set": {"read": True, "readAtMs": now_ms}})


async def until_no_conflict(commit: Callable[[], Awaitable[None]]) -> None:
    """Commit, again after each conflict. Raises Unavailable when conflicts do not end: another writer is at it."""
    for _ in range(CONFLICTS_MAX):
        try:
            await commit()
            return
        except Conflict as conflict:
            log.info("commit_conflict", reason=str(conflict))
            metrics.CONFLICTS.inc()
    raise Unavailable(f"still in conflict with another writer after {CONFLICTS_MAX} tries")


@contextmanager
def conflicting(reason: str) -> Iterator[None]:
    """Turn duplicate keys of a bulk write, and nothing else, into Conflict."""
    try:
        yield
    except BulkWriteError as error:
        codes = {failure["code"] for failure in error.details.get("writeErrors", [])}
        if codes == {DUPLICATE_KEY}:
            raise Conflict(reason) from error
        raise


def _unread(user_id: str) -> Document:
    return {"userId": user_id, "read": False}


def _is_marked(entry: Entry) -> bool:
    """Every 256th, at another seq for each user, so that an event for thousands sets few marks."""
    return (entry.seq + zlib.crc32(entry.user_id.encode())) % MARKED_EVERY == 0


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def date(at_ms: int) -> datetime:
    """The server's own kind of time, which it needs for expiry."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _to_record(document: Document) -> Record:
    created_at_ms = document["createdAtMs"]
    data = document.get("data")
    notice = None if data is None else Notice(document["_id"], document["type"], created_at_ms, bytes(data))
    return Record(document["_id"], created_at_ms, notice, document["done"])


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
