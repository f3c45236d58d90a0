"""Events in MongoDB: the collection `events`, `_id` the event key.

A document states whether the event is `done`, and holds the notice of an event for inboxes, once for all users. It is
kept for 7 days, with a notice for as long as inboxes refer to it.

Times are integers, milliseconds since 1970; only `expiresAt` is a date, because a TTL index needs one. Every operation
of notifier's stores is bounded (`shared.mongo.DOCUMENTS_MAX`). Only the `store` modules know the driver.
"""

from collections.abc import Collection, Sequence

from pymongo import ASCENDING, IndexModel, UpdateOne

from notifier.events.notifications import Notice, Record, without_text
from shared.errors import Unavailable
from shared.mongo import (
    DOCUMENTS_MAX,
    Database,
    Document,
    Indexes,
    chunks,
    conflicting,
    date,
    find_among,
    translated,
    update_among,
    write_each,
)
from shared.times import MILLISECONDS_PER_DAY

IDEMPOTENT_FOR_DAYS = 7
ERASURES_MAX = 5
NOTICE_MARGIN_DAYS = 7  # a notice outlives its entries, which may be written later and are swept late

INDEXES: Indexes = {"events": [IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0)]}


class EventStore:
    """Reads and writes of events. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database, notification_ttl_days: int) -> None:
        self._events = database["events"]
        self._ttl_ms = notification_ttl_days * MILLISECONDS_PER_DAY

    async def records(self, keys: Collection[str]) -> dict[str, Record]:
        """Return the records of these events."""
        found = await find_among(self._events, keys)
        return {document["_id"]: _to_record(document) for document in found}

    async def insert_records(self, records: Sequence[Record], now_ms: int) -> None:
        """Record that processing of these events has begun. Raises WriteConflict if one is known already."""
        for some in chunks(records, DOCUMENTS_MAX):
            with conflicting("an event is known already"), translated():
                await self._events.insert_many([self._from_record(record, now_ms) for record in some], ordered=False)

    async def mark_done(self, keys: Collection[str]) -> None:
        """Mark these events as done, so that they are skipped from now on."""
        await update_among(self._events, keys, {"$set": {"done": True}})

    async def erase(self, keys: Collection[str], now_ms: int) -> None:
        """Erase the texts of the notifications of these events. One that has yet to arrive counts as done.

        An event may be recorded, with its text, while this runs, so it looks again until there is nothing left to
        erase.
        """
        expires_at = date(now_ms + IDEMPOTENT_FOR_DAYS * MILLISECONDS_PER_DAY)
        for _ in range(ERASURES_MAX):
            records = await self.records(keys)
            erased = {key: without_text(one.notice) for key, one in records.items() if one.notice is not None}
            writes = [
                UpdateOne({"_id": key}, {"$set": {"data": notice.data}})
                for key, notice in erased.items()
                if notice != records[key].notice
            ]
            unknown: Document = {"done": True, "createdAtMs": now_ms, "expiresAt": expires_at}
            writes += [
                UpdateOne({"_id": key}, {"$setOnInsert": unknown}, upsert=True) for key in keys if key not in records
            ]
            if not writes:
                return
            await write_each(self._events, writes)
        raise Unavailable("events are recorded while their texts are erased")

    async def notices(self, keys: Collection[str]) -> dict[str, Notice]:
        """Return the notices of events that went to inboxes."""
        records = await self.records(keys)
        return {key: record.notice for key, record in records.items() if record.notice is not None}

    def _from_record(self, record: Record, now_ms: int) -> Document:
        document: Document = {"_id": record.key, "done": record.is_done, "createdAtMs": record.created_at_ms}
        if record.notice is None:
            return document | {"expiresAt": date(now_ms + IDEMPOTENT_FOR_DAYS * MILLISECONDS_PER_DAY)}
        kept_until_ms = now_ms + self._ttl_ms + NOTICE_MARGIN_DAYS * MILLISECONDS_PER_DAY
        return document | {"type": record.notice.type, "data": record.notice.data, "expiresAt": date(kept_until_ms)}


def _to_record(document: Document) -> Record:
    created_at_ms = document["createdAtMs"]
    data = document.get("data")
    notice = None if data is None else Notice(document["_id"], document["type"], created_at_ms, bytes(data))
    return Record(document["_id"], created_at_ms, notice, document["done"])
