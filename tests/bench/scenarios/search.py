"""Message search: a room with a million messages beside one with a thousand.

The messages are inserted into the log by this process, and indexed as those of an earlier version are. Then each query
is sent over REST, one after another, and every `next` of a query counts as a query of its own. At last the cost of
indexing is measured: `--rate` messages a second in `--senders` rooms, given to an indexer as the follower does.
"""

import asyncio
import itertools
import random
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence

import aiohttp
import msgspec

from chat_service.follower.consumer import RoomBatch
from chat_service.rooms.log import LogEntry
from chat_service.search.backfill import Backfill
from chat_service.search.index_store import IndexStore
from chat_service.search.indexer import SearchIndexer
from chat_service.storage.documents import from_entry
from chat_service.storage.log_store import LogStore
from chat_service.storage.room_store import RoomStore
from shared.bus.topology import PARTITIONS
from shared.ids import Prefix, new_id
from shared.mongo import Database, Mongo
from shared.times import now_ms
from tests.bench import system
from tests.bench.plans import a_message
from tests.bench.processes import CpuMeter, cpu_s, is_idle
from tests.bench.report import ScenarioOutcome
from tests.bench.system import Bench
from tests.bench.tally import Latencies, Tally
from tests.support.tokens import mint

USER = "load-operator"
SMALL = 1_000
INSERTED_AT_ONCE = 500
VOCABULARY = 20_000
LONELY = ("bullish", "bearish")  # each in a third of the messages, never together
P99_MAX_MS = 50.0
QUERIES = (
    ("frequent word", "w00000"),
    ("beginning of a frequent word", "w0000"),
    ("two frequent words", "w00000 w00001"),
    ("two frequent words that never meet", "bullish bearish"),
    ("rare word", "w19999"),
    ("word that nobody wrote", "unwritten"),
    ("beginning that nobody wrote", "unwri"),
)
FOLLOWED_EVERY_S = 0.25
SETTLE_MAX_S = 120


class Texts:
    """Texts of ten words by Zipf's law."""

    def __init__(self) -> None:
        self._random = random.Random(17)
        self._words = [f"w{number:05d}" for number in range(VOCABULARY)]
        self._weights = list(itertools.accumulate(1 / (number + 1) for number in range(VOCABULARY)))

    def text(self, number: int) -> str:
        """Return the text of a message."""
        words = self._random.choices(self._words, cum_weights=self._weights, k=10)
        return " ".join([*words, *LONELY[number % 3 : number % 3 + 1]])

    def entries(self, room_id: str, first: int, count: int) -> Iterator[LogEntry]:
        """Yield the entries of messages from seq `first` on; the first entry of the room created it."""
        for seq in range(first, first + count):
            entry = a_message(room_id, seq)
            assert entry.message is not None
            id_, at_ms = new_id(Prefix.MESSAGE), now_ms()
            message = msgspec.structs.replace(
                entry.message, id=id_, text=self.text(seq), client_message_id=None, created_at_ms=at_ms
            )
            yield msgspec.structs.replace(entry, id=id_, at_ms=at_ms, last_seq=seq, message=message)


def run(options: Namespace) -> ScenarioOutcome:
    """Fill, index, and measure."""
    with system.running() as bench:
        large, small = bench.rooms(2)
        lines, worst_ms, tally = asyncio.run(_measured(bench, large, small, options))
    problems = [f"{name}: p99 {p99:.1f} ms" for name, p99 in worst_ms.items() if p99 > P99_MAX_MS]
    tally.lost = len(problems)  # a figure above its bound fails the run
    settings = {"messages": options.messages, "small": SMALL, "rounds": options.rounds, "rate": options.rate}
    verdict = [*(problems or [f"every p99 is at most {P99_MAX_MS:g} ms"])]
    return ScenarioOutcome(
        "search", "realtime", settings, tally, figures={"p99_ms": worst_ms}, lines=[*lines, *verdict]
    )


async def _measured(
    bench: Bench, large: str, small: str, options: Namespace
) -> tuple[list[str], dict[str, float], Tally]:
    entries = bench.local.entries()
    mongo = Mongo(entries["MONGODB_URI"], entries["MONGODB_DATABASE"], timeout_s=60.0)
    lines = [await _fill(mongo.database, large, options.messages), await _fill(mongo.database, small, SMALL)]
    await _until_idle(bench.pids["database"])
    tally = Tally()
    worst_ms: dict[str, float] = {}
    lines += ["", f"{'query':52} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'CPU ms':>8} {'found':>6} {'next':>5}"]
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {mint(USER)}"}) as http:
        for path, where in ((large, "large room"), (small, "small room"), ("", "all rooms")):
            target = f"{bench.url}/v1/chatrooms/{path}/messages/search" if path else f"{bench.url}/v1/search"
            for title, query in QUERIES:
                meter = CpuMeter(bench.pids)
                meter.begin()
                taken, found, nexts = await _query(http, target, query, options.rounds)
                meter.end()
                cpu_ms = sum(meter.used_s.values()) * 1000 / options.rounds
                name = f"{where}: {title}"
                worst_ms[name] = taken.at(99) or 0.0
                tally.answers.merge(taken)
                shown = f"{taken.at(50):8} {taken.at(99):8} {taken.at(100):8} {cpu_ms:8.1f} {found:6} {nexts:5}"
                lines.append(f"{name:52} {shown}")
    lines += ["", await _indexing_cost(mongo.database, bench, options)]
    mongo.close()
    return lines, worst_ms, tally


async def _fill(database: Database, room_id: str, messages: int) -> str:
    """Append messages to a room, and index them."""
    texts, started_s = Texts(), time.monotonic()
    newest: LogEntry | None = None
    for first in range(1, messages + 1, INSERTED_AT_ONCE):
        some = list(texts.entries(room_id, first, min(INSERTED_AT_ONCE, messages - first + 1)))
        await database["room_log"].insert_many([from_entry(entry) for entry in some], ordered=False)
        newest = some[-1]
        if first % 100_000 == 1:
            print(f"  {first:,} messages …", file=sys.stderr, flush=True)
    assert newest is not None
    place = {"rev": newest.rev, "lastSeq": messages, "lastMessageAtMs": newest.at_ms, "activeAtMs": newest.at_ms}
    await database["room_records"].update_one({"_id": room_id}, {"$set": place})
    filled_s = time.monotonic()
    rooms, index = RoomStore(database), IndexStore(database)
    room = (await rooms.rooms([room_id]))[room_id]
    backfill = Backfill(database, rooms, LogStore(database), index, lambda: range(PARTITIONS), pause_ratio=0.0)
    await backfill.index_room(room)
    took_s = time.monotonic() - filled_s
    return f"{messages:,} messages: inserted in {filled_s - started_s:.0f} s, indexed in {took_s:.0f} s"


async def _until_idle(pid: int) -> None:
    """Wait until the database has settled: it goes on writing for a while after a million inserts."""
    for _ in range(SETTLE_MAX_S):
        if await asyncio.to_thread(is_idle, pid):
            return


async def _query(http: aiohttp.ClientSession, url: str, query: str, rounds: int) -> tuple[Latencies, int, int]:
    """Send a query and follow its `next`, `rounds` calls in all; return the times, the hits and the `next` of one."""
    taken = Latencies()
    found = nexts = 0
    before: str | None = None
    for number in range(rounds):
        given = {"q": query, "limit": "20"} | ({"before": before} if before else {})
        started_s = time.perf_counter()
        async with http.get(url, params=given) as response:
            body = await response.json()
        taken.add(round((time.perf_counter() - started_s) * 1_000_000))
        before = body["pagination"].get("next")
        if number == 0:
            found, nexts = len(body["data"]), int(before is not None)
    return taken, found, nexts


async def _indexing_cost(database: Database, bench: Bench, options: Namespace) -> str:
    """Give messages to an indexer at a steady rate, and return the CPU time of a message."""
    indexer, texts = SearchIndexer(IndexStore(database), now_ms), Texts()
    rooms = [f"room_indexed_{number}" for number in range(options.senders)]
    seqs = dict.fromkeys(rooms, 0)
    each = max(round(options.rate * FOLLOWED_EVERY_S), 1)
    batches = [_next_batch(texts, rooms, seqs, each) for _ in range(round(options.seconds / FOLLOWED_EVERY_S))]
    pid = bench.pids["database"]
    own_s, database_s = time.process_time(), cpu_s(pid)
    for batch in batches:
        due_s = time.monotonic() + FOLLOWED_EVERY_S
        await indexer.take(batch)
        await asyncio.sleep(max(due_s - time.monotonic(), 0.0))
    await indexer.finish()
    count = sum(seqs.values())
    own_us, database_us = ((time.process_time() - own_s) * 1e6 / count, (cpu_s(pid) - database_s) * 1e6 / count)
    return f"indexing {options.rate:,.0f} messages/s: CPU us a message: {own_us:.0f}, database {database_us:.0f}"


def _next_batch(texts: Texts, rooms: Sequence[str], seqs: dict[str, int], count: int) -> list[RoomBatch]:
    """Return the next messages of rooms chosen at random."""
    chosen = random.choices(rooms, k=count)
    batches: list[RoomBatch] = []
    for room_id in dict.fromkeys(chosen):
        some = list(texts.entries(room_id, seqs[room_id] + 1, chosen.count(room_id)))
        seqs[room_id] += len(some)
        batches.append(RoomBatch(room_id, some))
    return batches
