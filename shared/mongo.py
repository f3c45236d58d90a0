"""The database connection: waits for its server, makes indexes, translates driver errors.

Of the services, only this module, the `store` modules, and `change_writes`, `migration` and `search_words` of
chat_service know Motor or PyMongo.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import pymongo
import pymongo.errors
from bson.codec_options import TypeDecoder, TypeRegistry
from bson.int64 import Int64
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent
from pymongo.topology_description import TopologyDescription

from shared.backoff import Backoff
from shared.errors import Unavailable, WriteConflict
from shared.telemetry import logs, metrics, tracing

log = logs.get(__name__)

Document = dict[str, Any]
Database = AsyncIOMotorDatabase[Document]
Documents = AsyncIOMotorCollection[Document]
Write = pymongo.UpdateOne | pymongo.UpdateMany | pymongo.DeleteOne
Indexes = Mapping[str, Sequence[pymongo.IndexModel]]
Claim = Callable[[Database], Awaitable[None]]

T = TypeVar("T")
Q = TypeVar("Q")
R = TypeVar("R")

DUPLICATE_KEY = 11000
# Keys or writes per operation: one that is too large for its deadline would fail on every retry. SecantusDB needs 10 ms
# for 500 keys in one `$in` and 2.3 s for 8,000.
DOCUMENTS_MAX = 500
ONE_BATCH = DOCUMENTS_MAX + 1  # by default the first batch has 101 documents, and the rest costs another call
# Codes of errors that a document or a request can cause in any state of the server: value, type, length, form (2, 9,
# 14, 15, 16, 22, 241, 357, 378), paths and operators (28, 40, 52, 53, 56, 57, 66, 171), validator (121), size (10334,
# 17280, 17419, 17420), regular expression (51091).
# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_CAUSED_BY_INPUT = frozenset({2, 9, 14, 15, 16, 22, 28, 40, 52, 53, 56, 57, 66, 121, 171, 241, 357, 378})
_CAUSED_BY_INPUT |= {10334, DUPLICATE_KEY, 17280, 17419, 17420, 51091}
HEARTBEAT_MS = 1_000  # the interval of the driver's search for an unreachable server
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 3.0
PING_TIMEOUT_S = 1.0


class _PlainInt(TypeDecoder):
    """Decodes BSON's 64-bit integers as int; msgspec cannot write the driver's subclass."""

    bson_type = Int64

    def transform_bson(self, value: Int64) -> int:
        """Return the value as an int."""
        return int(value)


class _Measure(CommandListener):
    """Records the duration of each command. The driver calls it in its own threads."""

    def __init__(self) -> None:
        self._under_way: dict[int, tuple[str, Any]] = {}  # collection and span, by request id

    def started(self, event: CommandStartedEvent) -> None:
        """Start the span of a command."""
        name = event.command.get("collection" if event.command_name == "getMore" else event.command_name)
        collection = name if isinstance(name, str) else "none"
        self._under_way[event.request_id] = collection, tracing.within(f"mongo {event.command_name} {collection}")

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Record a command that succeeded."""
        self._ended(event)

    def failed(self, event: CommandFailedEvent) -> None:
        """Record a command that failed."""
        collection = self._ended(event)
        metrics.MONGO_FAILURES.labels(collection, event.command_name).inc()

    def _ended(self, event: CommandSucceededEvent | CommandFailedEvent) -> str:
        collection, span = self._under_way.pop(event.request_id, ("none", None))
        if span is not None:
            span.end()
        metrics.MONGO_SECONDS.labels(collection, event.command_name).observe(event.duration_micros / 1_000_000)
        return collection


class Mongo:
    """One process's client. `timeout_s` bounds every operation, connecting included."""

    def __init__(self, uri: str, database: str, *, timeout_s: float = 5.0) -> None:
        self._client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
            uri,
            tz_aware=True,
            type_registry=TypeRegistry([_PlainInt()]),
            event_listeners=[_Measure()],
            timeoutMS=round(timeout_s * 1000),
            serverSelectionTimeoutMS=round(timeout_s * 1000),
            heartbeatFrequencyMS=HEARTBEAT_MS,
            w="majority",
            journal=True,
            retryWrites=False,  # all writes are idempotent, and redelivery repeats them
        )
        self.database: Database = self._client[database]

    def failing_fast(self, answer: Callable[[Q], Awaitable[R]]) -> Callable[[Q], Awaitable[R]]:
        """Return `answer` as a function that raises Unavailable at once while no server is writable.

        Without it the driver would wait for a server until the deadline of the operation.
        """

        async def answer_if_writable(query: Q) -> R:
            if self.is_unavailable():
                raise Unavailable("the database is unavailable")
            return await answer(query)

        return answer_if_writable

    def is_unavailable(self) -> bool:
        """Return whether the driver knows no writable server; an operation would then wait until its deadline."""
        seen = cast(TopologyDescription, self._client.topology_description)  # the stub declares a method
        return not seen.has_writable_server()

    async def server_time_ms(self) -> int:
        """Return the time of the server's clock, in milliseconds since 1970. Raises Unavailable."""
        with translated():
            answer = await self.database.command("hello")
        local_time: datetime = answer["localTime"]
        return round(local_time.timestamp() * 1000)

    async def wait_ready(self, indexes: Indexes, claim: Claim | None = None) -> None:
        """Wait until the server answers and the indexes exist; retry with backoff, without a limit.

        `claim` comes first: it may refuse the database with an error other than Unavailable.
        """
        backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        while True:
            try:
                if claim is not None:
                    await claim(self.database)
                with translated():
                    await self._make_indexes(indexes)
                log.info("database_ready")
                return
            except Unavailable as error:
                delay_s = backoff.next_s()
                log.warning("database_not_ready", reason=str(error)[:300], retry_in_s=delay_s)
                await asyncio.sleep(delay_s)

    async def _make_indexes(self, indexes: Indexes) -> None:
        for collection, models in indexes.items():
            await self.database[collection].create_indexes(list(models))

    async def readiness(self) -> str | None:
        """Return None when the server answers, else the reason."""
        try:
            with translated(), pymongo.timeout(PING_TIMEOUT_S):
                await self.database.command("ping")
        except Unavailable as error:
            return f"database: {error}"
        return None

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


@contextmanager
def translated() -> Iterator[None]:
    """Raise Unavailable in place of errors caused by the server's state: all that the input cannot have caused.

    Lost connections, time-outs, a full disk, a missing right, a lost majority, and unknown codes: the next document
    would fail as well, so the caller waits. Other errors pass: bugs, and duplicate keys, which stores handle.
    """
    try:
        yield
    except pymongo.errors.PyMongoError as error:
        if is_caused_by_input(error):
            raise
        raise Unavailable(f"the database is unavailable: {_cause(error)}") from error


@contextmanager
def conflicting(reason: str) -> Iterator[None]:
    """Raise WriteConflict in place of a bulk write's failure by duplicate keys alone."""
    try:
        yield
    except pymongo.errors.BulkWriteError as error:
        if only_duplicates(error):
            raise WriteConflict(reason) from error
        raise


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in order, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def find_among(
    collection: Documents, keys: Iterable[object], *, field: str = "_id", projection: Document | None = None
) -> list[Document]:
    """Return the documents whose `field` is one of the keys, reading for 500 keys at a time. Raises Unavailable."""
    found: list[Document] = []
    for some in chunks(list(keys), DOCUMENTS_MAX):
        with translated():
            found += await collection.find({field: {"$in": some}}, projection, batch_size=ONE_BATCH).to_list(None)
    return found


async def update_among(collection: Documents, ids: Iterable[object], change: Document | list[Document]) -> None:
    """Change the documents with these ids, 500 per call. Raises Unavailable."""
    for some in chunks(list(ids), DOCUMENTS_MAX):
        with translated():
            await collection.update_many({"_id": {"$in": some}}, change)


async def remove_all(collection: Documents, chosen: Document) -> None:
    """Remove the documents that a filter selects, 500 at a time. Raises Unavailable."""
    with translated():
        while found := await collection.find(chosen, {"_id": 1}).limit(DOCUMENTS_MAX).to_list(None):
            await collection.delete_many({"_id": {"$in": [document["_id"] for document in found]}})


async def write_each(collection: Documents, writes: Sequence[Write]) -> None:
    """Carry out independent writes, 500 per call. Raises Unavailable; BulkWriteError for errors caused by the input."""
    for some in chunks(writes, DOCUMENTS_MAX):
        with translated():
            await collection.bulk_write(some, ordered=False)


def date(at_ms: int) -> datetime:
    """Return a time as the server's date type, because a TTL index needs one."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def narrowed(indexed: Document, further: Document) -> list[Document]:
    """Return a filter as two stages of an aggregation.

    MongoDB merges them; SecantusDB makes an index scan of the first and a filter of the second.
    """
    return [{"$match": indexed}, {"$match": further}]


def only_duplicates(error: pymongo.errors.BulkWriteError) -> bool:
    """Return whether duplicate keys are the only failures of a bulk write."""
    return {failure["code"] for failure in error.details.get("writeErrors", [])} == {DUPLICATE_KEY}


def is_caused_by_input(error: pymongo.errors.PyMongoError) -> bool:
    """Return whether only the input can have caused an error, so that the same document would fail at any time.

    A bulk write has the codes in its details. A write with a write concern error may still be rolled back.
    """
    match error:
        case pymongo.errors.WriteConcernError():
            return False
        case pymongo.errors.BulkWriteError(details=details):
            failures = (details or {}).get("writeErrors", [])
            is_confirmed = not (details or {}).get("writeConcernErrors")
            return is_confirmed and all(failure.get("code") in _CAUSED_BY_INPUT for failure in failures)
        case pymongo.errors.OperationFailure(code=code):
            return code in _CAUSED_BY_INPUT
        case pymongo.errors.InvalidOperation() | pymongo.errors.InvalidName():
            return True
    return False


def _cause(error: pymongo.errors.PyMongoError) -> str:
    """Name an error without its message, which may quote a document."""
    name, details = type(error).__name__, getattr(error, "details", None) or {}
    failures = [*details.get("writeErrors", []), *details.get("writeConcernErrors", [])]
    failure = next((failure for failure in failures if failure.get("code") not in _CAUSED_BY_INPUT), details)
    code = failure.get("code")
    return name if code is None else f"{failure.get('codeName', name)} ({code})"
