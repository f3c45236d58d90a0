"""All database queries of market_feed. Its only module that knows the driver.

Collections:

- `market_ticks`: the journal, one document per batch of ticks, `_id` its number; the server removes it at `expiresAt`.
- `market_candles`: closed candles. `_id` is symbol, interval and opening time, so that a series is one range of it.
- `market_state`: open state. `_id` "group <n>" holds up to 500 symbols, each with its quote and newest candles, because
  one document costs one upsert; `_id` "head" holds the batch through which all that is complete.
- `market_lease`: the lease of the symbols.

Times are integers, milliseconds since 1970; only `expiresAt` is a date, because the server's expiry needs one.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence

import msgspec
from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError

from market_feed.candles import Candle, CandleKey, Kept
from market_feed.lease import Lease
from market_feed.market import Cut, JournalBatch, SymbolState, decode_states
from market_feed.quotes import Tick
from shared.commands.market import Interval
from shared.errors import StaleOwner
from shared.mongo import DUPLICATE_KEY, Database, Document, Indexes, date, translated

LEASE_ID = "market"
HEAD_ID = "head"
SEEN_BATCHES = 500
CANDLES_AT_ONCE = 1000

INDEXES: Indexes = {"market_ticks": [IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0)]}


class _Ticks(msgspec.Struct, array_like=True, frozen=True):
    ticks: list[Tick]
    seqs: list[int]


class JournalHead(msgspec.Struct, frozen=True):
    """The batch through which state and candles are complete, and the positions of the sources then."""

    through: int
    positions: dict[str, int]


_ticks_encoder = msgspec.msgpack.Encoder()
_ticks_decoder = msgspec.msgpack.Decoder(_Ticks)


class MarketStore:
    """Reads and writes. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database, tick_ttl_s: float, clock_ms: Callable[[], int]) -> None:
        self._ticks = database["market_ticks"]
        self._candles = database["market_candles"]
        self._state = database["market_state"]
        self._lease = database["market_lease"]
        self._tick_ttl_ms = round(tick_ttl_s * 1000)
        self._clock_ms = clock_ms

    # Journal --------------------------------------------------------------------------------------------------------

    async def append(self, batch: JournalBatch) -> None:
        """Write a batch durably, as a whole. Idempotent."""
        document: Document = {
            "_id": batch.number,
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
            return  # an earlier try took effect

    async def batches_after(self, number: int) -> AsyncIterator[JournalBatch]:
        """Yield the batches behind this one, in order."""
        with translated():
            async for document in self._ticks.find({"_id": {"$gt": number}}).sort("_id", ASCENDING):
                yield _to_batch(document)

    async def recent_event_keys(self) -> bytes:
        """Return the keys of the events of the last batches, oldest first."""
        with translated():
            newest = self._ticks.find({}, {"events": 1}).sort("_id", DESCENDING).limit(SEEN_BATCHES)
            found = await newest.to_list(None)
        return b"".join(document["events"] for document in reversed(found))

    # State ----------------------------------------------------------------------------------------------------------

    async def put_cut(self, cut: Cut) -> None:
        """Write a cut, its head last. Idempotent. Raises StaleOwner."""
        await self._put_candles(cut.candles)
        documents: list[Document] = [
            {"_id": f"group {number}", "through": cut.through, "symbols": body} for number, body in cut.groups.items()
        ]
        positions = [[source, row] for source, row in cut.positions.items()]
        documents.append({"_id": HEAD_ID, "through": cut.through, "positions": positions})
        try:
            with translated():
                for document in documents:
                    chosen = {"_id": document["_id"], "through": {"$lte": cut.through}}
                    await self._state.replace_one(chosen, document, upsert=True)
        except DuplicateKeyError as error:
            raise StaleOwner("another process has written a later state") from error

    async def states(self) -> list[SymbolState]:
        """Return every symbol as it was last written."""
        with translated():
            found = await self._state.find({"_id": {"$ne": HEAD_ID}}).to_list(None)
        return [state for document in found for state in decode_states(document["symbols"])]

    async def head(self) -> JournalHead:
        """Return how far the stored state goes."""
        with translated():
            document = await self._state.find_one({"_id": HEAD_ID})
        if document is None:
            return JournalHead(0, {})
        return JournalHead(document["through"], {source: row for source, row in document["positions"]})

    # Candles --------------------------------------------------------------------------------------------------------

    async def _put_candles(self, candles: Sequence[Kept]) -> None:
        """Insert candles, which is fast, and rewrite existing ones unless a later owner wrote them."""
        for start in range(0, len(candles), CANDLES_AT_ONCE):
            documents = [_from_candle(kept) for kept in candles[start : start + CANDLES_AT_ONCE]]
            try:
                with translated():
                    await self._candles.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                await self._rewrite_candles([documents[number] for number in _duplicates(error)])

    async def _rewrite_candles(self, documents: Iterable[Document]) -> None:
        writes = [
            ReplaceOne({"_id": document["_id"], "seq": {"$lte": document["seq"]}}, document) for document in documents
        ]
        with translated():
            await self._candles.bulk_write(writes, ordered=False)

    async def candles_by_key(self, keys: Collection[CandleKey]) -> dict[CandleKey, Candle]:
        """Return those of the candles that are stored."""
        by_id = {_candle_id(key): key for key in keys}
        ids = list(by_id)
        found: dict[CandleKey, Candle] = {}
        for start in range(0, len(ids), CANDLES_AT_ONCE):
            with translated():
                chosen = {"_id": {"$in": ids[start : start + CANDLES_AT_ONCE]}}
                for document in await self._candles.find(chosen).to_list(None):
                    found[by_id[document["_id"]]] = _to_candle(document)
        return found

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
        """Return the lease."""
        with translated():
            document = await self._lease.find_one({"_id": LEASE_ID})
        return _to_lease(document) if document else Lease()

    async def take_lease(self, seen: Lease, holder: str) -> Lease | None:
        """Take the lease over as it was read, and return the new one; None if another process was faster."""
        chosen = {"_id": LEASE_ID, "term": seen.term, "beat": seen.beat, "holder": seen.holder}
        change = {"$set": {"holder": holder, "beat": 0, "term": seen.term + 1}}
        try:
            with translated():
                document = await self._lease.find_one_and_update(
                    chosen, change, upsert=seen == Lease(), return_document=ReturnDocument.AFTER
                )
        except DuplicateKeyError:
            return None
        return _to_lease(document) if document else None

    async def beat(self, term: int, holder: str) -> bool:
        """Renew the lease, and return whether it is still ours."""
        with translated():
            result = await self._lease.update_one(
                {"_id": LEASE_ID, "term": term, "holder": holder}, {"$inc": {"beat": 1}}
            )
        return bool(result.matched_count)

    async def release_lease(self, term: int, holder: str) -> None:
        """Release the lease, if it is still ours."""
        with translated():
            await self._lease.update_one({"_id": LEASE_ID, "term": term, "holder": holder}, {"$set": {"holder": None}})


def _candle_id(key: CandleKey) -> str:
    return f"{key.symbol} {key.interval.value} {key.open_ms:015d}"


def _duplicates(error: BulkWriteError) -> list[int]:
    """Return the numbers of the documents that existed before. Raises the error if it has another cause."""
    failures = (error.details or {}).get("writeErrors", [])
    if any(failure["code"] != DUPLICATE_KEY for failure in failures):
        raise error
    return [failure["index"] for failure in failures]


def _from_candle(kept: Kept) -> Document:
    candle = kept.candle
    return {
        "_id": _candle_id(kept.key),
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
    return JournalBatch(document["_id"], entry.ticks, entry.seqs, document["events"], positions)


def _to_lease(document: Document) -> Lease:
    return Lease(term=document["term"], beat=document["beat"], holder=document["holder"])
