"""What notifier keeps in MongoDB, and every query it makes. The only module of it that knows the driver.

Collections:
- `events`: `_id` event key; whether it is `done`, and for inboxes its notice, once for all its users.
- `notifications`: `_id` notification id; a user's entry: which event, which `seq`, read or not.
- `inboxes`: `_id` user id; the last `seq` that was removed. Entries expire, but no seq is given twice: so it is `sweep`
  that removes them, not the server.

Times are integers, milliseconds since 1970; only the `expiresAt` of events is a date, as the server removes by it.
Every operation is bounded, by 1,000 documents or so: one that took longer than its deadline would never succeed.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne
from pymongo.errors import BulkWriteError

from notifier.notices import Entry, Notice
from shared.errors import RealtimeError
from shared.mongo import Database, Document, Indexes, translated
from shared.times import MILLISECONDS_PER_DAY

T = TypeVar("T")

DUPLICATE_KEY = 11000
IDEMPOTENT_FOR_DAYS = 7
AT_ONCE = 1000
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


class Record(msgspec.Struct, frozen=True):
    """What is known of an event. `notice` is there when it went to inboxes."""

    is_done: bool
    created_at_ms: int
    notice: Notice | None


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

    async def insert_records(self, notices: Iterable[tuple[Notice, bool]], now_ms: int) -> None:
        """Note that these events are begun; those with True go to inboxes. Raises Conflict if one is known already."""
        documents = [self._from_notice(notice, to_users=to_users, now_ms=now_ms) for notice, to_users in notices]
        if not documents:
            return
        with _conflicting("an event is known already"), translated():
            await self._events.insert_many(documents, ordered=False)

    async def mark_done(self, keys: Collection[str]) -> None:
        """Note that these events are delivered: they are passed over from now on."""
        if keys:
            with translated():
                await self._events.update_many({"_id": {"$in": list(keys)}}, {"$set": {"done": True}})

    async def notices(self, keys: Collection[str]) -> dict[str, Notice]:
        """The notices of events that went to inboxes."""
        records = await self.records(keys)
        return {key: record.notice for key, record in records.items() if record.notice is not None}

    def _from_notice(self, notice: Notice, *, to_users: bool, now_ms: int) -> Document:
        idempotent_until_ms = now_ms + IDEMPOTENT_FOR_DAYS * MILLISECONDS_PER_DAY
        document: Document = {"_id": notice.key, "done": False, "createdAtMs": notice.created_at_ms}
        if not to_users:
            return document | {"expiresAt": _date(idempotent_until_ms)}
        kept_until_ms = now_ms + self._ttl_ms + RECORD_MARGIN_DAYS * MILLISECONDS_PER_DAY
        return document | {"type": notice.type, "data": notice.data, "expiresAt": _date(kept_until_ms)}

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

    async def begun(self, user_ids: Collection[str]) -> set[str]:
        """Those users who ever had an entry: two looks for a thousand users, where `heads` takes one for each."""
        begun: set[str] = set()
        for some in _chunks(list(user_ids), AT_ONCE):
            with translated():  # in this order: what is swept has been counted before it went
                first = await self._entries.find({"userId": {"$in": some}, "seq": 1}, {"userId": 1}).to_list(None)
                swept = await self._inboxes.find({"_id": {"$in": some}}, {"_id": 1}).to_list(None)
            begun.update(document["userId"] for document in first)
            begun.update(document["_id"] for document in swept)
        return begun

    async def heads(self, user_ids: Collection[str]) -> dict[str, int]:
        """The last seq of each of these inboxes; 0 for one that does not exist yet. As fast for a long inbox."""
        heads: dict[str, int] = {}
        for some in _chunks(list(user_ids), AT_ONCE):
            waiting = iter(some)
            await asyncio.gather(*(self._load_newest(waiting, heads) for _ in range(CONCURRENT_READS)))
            with translated():  # only now, for the same reason as above
                found = await self._inboxes.find({"_id": {"$in": some}}).to_list(None)
            for document in found:
                heads[document["_id"]] = max(heads[document["_id"]], document["seq"])
        return heads

    async def _load_newest(self, user_ids: Iterator[str], heads: dict[str, int]) -> None:
        for user_id in user_ids:
            with translated():
                newest = await self._entries.find_one({"userId": user_id}, {"seq": 1}, sort=[("seq", DESCENDING)])
            heads[user_id] = newest["seq"] if newest else 0

    async def insert_entries(self, entries: Sequence[Entry], now_ms: int) -> None:
        """Insert in order, stopping at the first that is already there, so that no seq stays empty.

        Raises Conflict then: what came before it is stored, the rest is not.
        """
        expires_at_ms = now_ms + self._ttl_ms
        for some in _chunks(entries, AT_ONCE):
            with _conflicting("an entry or its seq is there already"), translated():
                await self._entries.insert_many([_from_entry(entry, expires_at_ms) for entry in some], ordered=True)

    async def sweep(self, now_ms: int) -> int:
        """Remove some of the entries that have expired; returns how many: call it again until that is 0."""
        with translated():
            chosen = self._entries.find({"expiresAtMs": {"$lte": now_ms}}, {"userId": 1, "seq": 1})
            found = await chosen.sort("expiresAtMs", ASCENDING).limit(AT_ONCE).to_list(None)
            last: dict[str, int] = {}
            for document in found:
                last[document["userId"]] = max(last.get(document["userId"], 0), document["seq"])
            if found:
                writes = [UpdateOne({"_id": user}, {"$max": {"seq": seq}}, upsert=True) for user, seq in last.items()]
                await self._inboxes.bulk_write(writes, ordered=False)
                await self._entries.delete_many({"_id": {"$in": [document["_id"] for document in found]}})
        return len(found)

    # Inboxes: the readers -------------------------------------------------------------------------------------------

    async def entries_between(self, user_id: str, first: int, last: int) -> list[Entry]:
        """The entries with `first` ≤ seq ≤ `last`, oldest first."""
        with translated():
            cursor = self._entries.find({"userId": user_id, "seq": {"$gte": first, "$lte": last}})
            found = await cursor.sort("seq", ASCENDING).to_list(None)
        return [_to_entry(document) for document in found]


@contextmanager
def _conflicting(reason: str) -> Iterator[None]:
    """Turn duplicate keys, and nothing else, into Conflict."""
    try:
        yield
    except BulkWriteError as error:
        codes = {failure["code"] for failure in error.details.get("writeErrors", [])}
        if codes == {DUPLICATE_KEY}:
            raise Conflict(reason) from error
        raise


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _date(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def _to_record(document: Document) -> Record:
    created_at_ms = document["createdAtMs"]
    data = document.get("data")
    notice = None if data is None else Notice(document["_id"], document["type"], created_at_ms, bytes(data))
    return Record(document["done"], created_at_ms, notice)


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
