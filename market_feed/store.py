"""All database queries of market_feed. No other module of the service uses the driver.

Collections:

- `market_ticks`: the journal, one document per batch of ticks, `_id` its number, `term` its owner's; the server removes
  it at `expiresAt`. Numbers continue without gaps across terms, so the unique `_id` is the lock of the journal.
- `market_events`: the index of processed events. A document holds up to 5,000 keys of one checkpoint, signed 64-bit
  integers with an index on each; the server removes it after 7 days and an hour. Measured on SecantusDB: 6.7 µs a key
  to write, 8 µs a key to look up in a query of 500, 0.7 ms for a query of one.
- `market_candles`: closed candles. `_id` is symbol, interval and opening time, so that a series is one range.
- `market_state`: open state. `_id` "group <n>" holds up to 500 symbols, each with its quote and newest candles, because
  one document costs one upsert; `_id` "head" (an older name) holds the batch through which they are complete.
- `market_lease`: the lease of the symbols. `at` is the database's time of the beat that `stamped` identifies by term
  and number. Release 0.2 updates neither field: if `stamped` is not the current beat, `at` is stale and ignored.

Times are integers, milliseconds since 1970; only `expiresAt` is a date, because a TTL index needs one.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from market_feed.candles import Candle, CandleKey, KeyedCandle
from market_feed.lease import Lease
from market_feed.market import Checkpoint, JournalBatch, SymbolState, decode_states, split_keys
from market_feed.quotes import Tick
from shared.bus.events import SHORT_KEY_BYTES
from shared.commands.market import Interval
from shared.errors import StaleOwner, Unavailable
from shared.generation_store import DatabaseGeneration
from shared.mongo import (
    DOCUMENTS_MAX,
    Database,
    Document,
    Indexes,
    chunks,
    date,
    find_among,
    only_duplicates,
    translated,
)
from shared.times import MILLISECONDS_PER_DAY

LEASE_ID = "market"
POSITION_ID = "head"  # an older name, kept on disk
SEEN_BATCHES = 500
KEYS_PER_DOCUMENT = 5_000
DOCUMENTS_AT_ONCE = 4
INDEXED_FOR_MS = 7 * MILLISECONDS_PER_DAY + 3_600_000

INDEXES: Indexes = {
    "market_ticks": [IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0)],
    "market_events": [
        IndexModel([("keys", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ],
}


class _Ticks(msgspec.Struct, array_like=True, frozen=True):
    ticks: list[Tick]
    seqs: list[int]


class CheckpointPosition(msgspec.Struct, frozen=True):
    """The batch through which state and candles are complete, and the positions of the sources then."""

    complete_through_batch: int
    source_positions: dict[str, int]


class RecentKeys(NamedTuple):
    """Keys of the events of the last batches, oldest first, and of events missing from the index."""

    seen: bytes
    unindexed: bytes


class DayKeys(NamedTuple):
    """Keys of events that were processed on one day since 1970."""

    day: int
    keys: list[bytes]


_ticks_encoder = msgspec.msgpack.Encoder()
_ticks_decoder = msgspec.msgpack.Decoder(_Ticks)


class MarketStore:
    """The database of market_feed. Every method raises Unavailable if the database is unavailable."""

    def __init__(self, database: Database, tick_ttl_s: float, clock_ms: Callable[[], int]) -> None:
        self._ticks = database["market_ticks"]
        # Majority reads: an entry that is not on a majority may be rolled back. Its events were not acknowledged, so a
        # new owner must not treat them as processed.
        self._journal = database.get_collection("market_ticks", read_concern=ReadConcern("majority"))
        self._events = database["market_events"]
        self._candles = database["market_candles"]
        self._state = database["market_state"]
        self._lease = database["market_lease"]
        self._generation = DatabaseGeneration(database)
        self._tick_ttl_ms = round(tick_ttl_s * 1000)
        self._clock_ms = clock_ms

    # Journal --------------------------------------------------------------------------------------------------------

    async def append(self, batch: JournalBatch) -> None:
        """Write a batch durably, as a whole. Idempotent. Raises StaleOwner if another term has taken its number."""
        document: Document = {
            "_id": batch.number,
            "term": batch.term,
            "ticks": _ticks_encoder.encode(_Ticks(batch.ticks, batch.seqs)),
            "count": len(batch.ticks),
            "events": batch.event_keys,
            "positions": [[source, row] for source, row in batch.positions.items()],
            "expiresAt": date(self._clock_ms() + self._tick_ttl_ms),
        }
        try:
            with translated():
                await self._ticks.insert_one(document)
        except DuplicateKeyError:
            await self._check_own(batch)

    async def _check_own(self, batch: JournalBatch) -> None:
        """Return if the stored entry is our own, from an earlier attempt. Raises StaleOwner or Unavailable.

        A majority read, because the conflicting entry may still be rolled back.
        """
        with translated():
            document = await self._journal.find_one({"_id": batch.number}, {"term": 1})
        if document is None:
            raise Unavailable("the last entry of the journal is not on a majority yet")
        if document.get("term") != batch.term:
            raise StaleOwner("another process has written the journal")

    async def batches_after(self, number: int) -> AsyncIterator[JournalBatch]:
        """Yield the batches after this one, in order."""
        with translated():
            async for document in self._journal.find({"_id": {"$gt": number}}).sort("_id", ASCENDING):
                yield _to_batch(document)

    async def recent_keys(self) -> RecentKeys:
        """Return the keys of the events of the last batches.

        If release 0.2, which had no index, wrote one of these batches, the keys of all its batches in the journal
        count as unindexed.
        """
        with translated():
            newest = self._ticks.find({}, {"events": 1, "term": 1}).sort("_id", DESCENDING).limit(SEEN_BATCHES)
            found = await newest.to_list(None)
            left: list[Document] = []
            if any("term" not in document for document in found):
                left = await self._ticks.find({"term": {"$exists": False}}, {"events": 1}).to_list(None)
        seen = b"".join(document["events"] for document in reversed(found))
        return RecentKeys(seen, b"".join(document["events"] for document in left))

    # Events ---------------------------------------------------------------------------------------------------------

    async def processed(self, event_keys: Sequence[bytes]) -> set[bytes]:
        """Return the events that are in the index."""
        found: set[bytes] = set()
        for some in chunks(event_keys, DOCUMENTS_MAX):
            wanted = {_number_of(key): key for key in some}
            with translated():
                async for document in self._events.find({"keys": {"$in": list(wanted)}}, {"keys": 1}):
                    found.update(wanted[number] for number in wanted.keys() & set(document["keys"]))
        return found

    async def index(self) -> AsyncIterator[DayKeys]:
        """Yield all keys of the index, some thousands at a time, each with their day since 1970."""
        with translated():
            async for document in self._events.find({}, {"keys": 1, "day": 1}).batch_size(DOCUMENTS_AT_ONCE):
                yield DayKeys(document["day"], [_key_of(number) for number in document["keys"]])

    async def _put_events(self, checkpoint: Checkpoint) -> None:
        """Add the events of a checkpoint to the index.

        Idempotent: the ids contain the last batch. A retry with the same events has the same ids; new events make a new
        batch, hence new ids.
        """
        now_ms = self._clock_ms()
        numbers = [_number_of(key) for key in split_keys(checkpoint.event_keys)]
        documents: list[Document] = [
            {
                "_id": f"{checkpoint.last_batch}.{place}",
                "day": now_ms // MILLISECONDS_PER_DAY,
                "keys": list(some),
                "expiresAt": date(now_ms + INDEXED_FOR_MS),
            }
            for place, some in enumerate(chunks(numbers, KEYS_PER_DOCUMENT))
        ]
        for few in chunks(documents, DOCUMENTS_AT_ONCE):
            try:
                with translated():
                    await self._events.insert_many(few, ordered=False)
            except BulkWriteError as error:
                if not only_duplicates(error):
                    raise

    # State ----------------------------------------------------------------------------------------------------------

    async def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, its position last. Idempotent. Raises StaleOwner."""
        await self._put_events(checkpoint)
        await self._put_candles(checkpoint.candles)
        documents: list[Document] = [
            {"_id": f"group {number}", "through": checkpoint.complete_through_batch, "symbols": body}
            for number, body in checkpoint.groups.items()
        ]
        positions = [[source, row] for source, row in checkpoint.positions.items()]
        documents.append({"_id": POSITION_ID, "through": checkpoint.complete_through_batch, "positions": positions})
        try:
            with translated():
                for document in documents:
                    chosen = {"_id": document["_id"], "through": {"$lte": checkpoint.complete_through_batch}}
                    await self._state.replace_one(chosen, document, upsert=True)
        except DuplicateKeyError as error:
            raise StaleOwner("another process has written a later state") from error

    async def states(self) -> list[SymbolState]:
        """Return the stored state of every symbol."""
        with translated():
            found = await self._state.find({"_id": {"$ne": POSITION_ID}}).to_list(None)
        return [state for document in found for state in decode_states(document["symbols"])]

    async def checkpoint_position(self) -> CheckpointPosition:
        """Return the position of the last complete checkpoint."""
        with translated():
            document = await self._state.find_one({"_id": POSITION_ID})
        if document is None:
            return CheckpointPosition(0, {})
        return CheckpointPosition(document["through"], {source: row for source, row in document["positions"]})

    # Candles --------------------------------------------------------------------------------------------------------

    async def _put_candles(self, candles: Sequence[KeyedCandle]) -> None:
        """Insert candles, which is fast, and rewrite existing ones unless a later owner wrote them."""
        for some in chunks(candles, DOCUMENTS_MAX):
            documents = [_from_candle(keyed) for keyed in some]
            try:
                with translated():
                    await self._candles.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                if not only_duplicates(error):
                    raise
                existing = [documents[failure["index"]] for failure in error.details["writeErrors"]]
                await self._rewrite_candles(existing)

    async def _rewrite_candles(self, documents: Iterable[Document]) -> None:
        writes = [
            ReplaceOne({"_id": document["_id"], "seq": {"$lte": document["seq"]}}, document) for document in documents
        ]
        with translated():
            await self._candles.bulk_write(writes, ordered=False)

    async def candles_by_key(self, keys: Collection[CandleKey]) -> dict[CandleKey, Candle]:
        """Return the candles that are stored."""
        by_id = {_candle_id(key): key for key in keys}
        found = await find_among(self._candles, by_id)
        return {by_id[document["_id"]]: _to_candle(document) for document in found}

    async def candles(
        self, symbol: str, interval: Interval, from_ms: int, to_ms: int, limit: int, *, newest: bool
    ) -> list[Candle]:
        """Return the newest or oldest stored candles that open from `from_ms` through `to_ms`, in any order."""
        bounds = {
            "$gte": _candle_id(CandleKey(symbol, interval, from_ms)),
            "$lte": _candle_id(CandleKey(symbol, interval, to_ms)),
        }
        with translated():
            cursor = self._candles.find({"_id": bounds}).sort("_id", DESCENDING if newest else ASCENDING).limit(limit)
            return [_to_candle(document) for document in await cursor.to_list(None)]

    # Lease ----------------------------------------------------------------------------------------------------------

    async def lease(self) -> Lease:
        """Return the lease, with the age of its last heartbeat by the database's clock."""
        with translated():
            found = await self._lease.aggregate(
                [{"$match": {"_id": LEASE_ID}}, {"$addFields": {"now": "$$NOW"}}]
            ).to_list(1)
        return _to_lease(found[0]) if found else Lease()

    async def take_lease(self, seen: Lease, holder: str, queue: str | None) -> Lease | None:
        """Take over the lease if it is unchanged since it was read, and return the new one; None if it changed."""
        chosen = {"_id": LEASE_ID, "term": seen.term, "beat": seen.beat, "holder": seen.holder}
        generation = await self._generation.read()
        term = seen.next_term(generation)
        taken = {"term": term, "beat": 0, "holder": holder, "queue": queue, "stamped": [term, 0]}
        taken["generation"] = generation
        try:
            with translated():
                document = await self._lease.find_one_and_update(
                    chosen,
                    {"$set": taken, "$currentDate": {"at": True}},
                    upsert=seen == Lease(),
                    return_document=ReturnDocument.AFTER,
                )
        except DuplicateKeyError:
            return None
        return _to_lease(document) if document else None

    async def beat(self, term: int, beat: int, holder: str, queue: str | None) -> bool:
        """Renew the lease, and return whether this process still holds it."""
        change = {"beat": beat, "queue": queue, "stamped": [term, beat]}
        with translated():
            result = await self._lease.update_one(
                {"_id": LEASE_ID, "term": term, "holder": holder}, {"$set": change, "$currentDate": {"at": True}}
            )
        return bool(result.matched_count)

    async def release_lease(self, term: int, holder: str) -> None:
        """Release the lease, if this process still holds it."""
        with translated():
            await self._lease.update_one({"_id": LEASE_ID, "term": term, "holder": holder}, {"$set": {"holder": None}})


def _number_of(key: bytes) -> int:
    return int.from_bytes(key, "big", signed=True)


def _key_of(number: int) -> bytes:
    return number.to_bytes(SHORT_KEY_BYTES, "big", signed=True)


def _candle_id(key: CandleKey) -> str:
    return f"{key.symbol} {key.interval.value} {key.open_ms:015d}"


def _from_candle(keyed: KeyedCandle) -> Document:
    candle = keyed.candle
    return {
        "_id": _candle_id(keyed.key),
        "openMs": candle.open_ms,
        "open": candle.open,
        "high": candle.high,
        "low": candle.low,
        "close": candle.close,
        "volume": candle.volume,
        "firstMs": candle.first_ms,
        "lastMs": candle.last_ms,
        "seq": candle.seq,
    }


def _to_candle(document: Document) -> Candle:
    return Candle(
        open_ms=document["openMs"],
        open=document["open"],
        high=document["high"],
        low=document["low"],
        close=document["close"],
        volume=document["volume"],
        first_ms=document["firstMs"],
        last_ms=document["lastMs"],
        seq=document["seq"],
    )


def _to_batch(document: Document) -> JournalBatch:
    entry = _ticks_decoder.decode(document["ticks"])
    positions = {source: row for source, row in document["positions"]}
    term = document.get("term", 0)  # 0 for an entry of release 0.2
    return JournalBatch(document["_id"], term, entry.ticks, entry.seqs, document["events"], positions)


def _to_lease(document: Document) -> Lease:
    term, beat = document["term"], document["beat"]
    at: datetime | None = document.get("at")
    now: datetime | None = document.get("now")
    age_s = None
    if at is not None and now is not None and document.get("stamped") == [term, beat]:
        age_s = max((now - at).total_seconds(), 0.0)
    generation = document.get("generation")
    return Lease(term, beat, document["holder"], document.get("queue"), age_s, generation)
