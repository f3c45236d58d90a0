"""History by cursor and by page in a room with 100,000 messages, and the plan of every query.

    python -m tests.bench.history --messages 100000

Provisions its own database. Exits with 1 if a page at any depth costs over three times the first one, or if a plan has
a collection scan or examines far more than it returns.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from chat_service.people.presence import Presence, PresenceTimes
from chat_service.queries import ChatQueryHandler
from chat_service.search.message_search import MessageSearch
from shared.bus.delivery import Delivery
from shared.commands.chat_queries import ListMessages, MessagePage
from shared.commands.command import Caller
from shared.mongo import Mongo
from shared.times import now_ms
from tests.bench.plans import INDEXES, Stores, calls_not_made, explained, fill
from tests.support.infrastructure import Database
from tests.support.publishing import PublisherStub

ROOM = "room_history"
LIMIT = 50
RATIO_MAX = 3.0
DATABASE = "history"


class NoBus(PublisherStub):
    """Reads need no bus."""

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        raise AssertionError("reads deliver nothing")

    def reply(self, reply_to: str, line: bytes) -> "asyncio.Future[None]":
        raise AssertionError("reads are answered by who asked for them")


def pages(messages: int) -> dict[str, ListMessages]:
    """Yield the pages to compare."""

    def page(number: int = 1, before: int | None = None, after: int | None = None) -> ListMessages:
        return ListMessages(
            id="cmd_1",
            deadline_ms=2**53,
            caller=Caller(user_id="user_1"),
            room_id=ROOM,
            page=number,
            limit=LIMIT,
            before=before,
            after=after,
        )

    last = -(-messages // LIMIT)
    half = messages // 2
    return {
        "first page": page(),
        f"page {last // 2} of {last}": page(last // 2),
        f"last page, {last}": page(last),
        f"page {last + 1}, beyond the end": page(last + 1),
        f"before={messages + 1}, the top": page(before=messages + 1),
        f"before={half}, at depth": page(before=half),
        f"before={LIMIT + 1}, the bottom": page(before=LIMIT + 1),
        f"after={messages - LIMIT}, the top": page(after=messages - LIMIT),
        f"after={half}, at depth": page(after=half),
        "after=0, the bottom": page(after=0),
    }


async def measure(queries: ChatQueryHandler, messages: int, rounds: int) -> int:
    """Time all pages in turn, `rounds` times, and return the number of slow ones."""
    took_ms: dict[str, list[float]] = {name: [] for name in pages(messages)}
    shown: dict[str, str] = {}
    for _ in range(rounds):
        for name, query in pages(messages).items():
            started_s = time.perf_counter()
            answer = await queries.answer(query)
            took_ms[name].append((time.perf_counter() - started_s) * 1000)
            assert isinstance(answer, MessagePage)
            seqs = [item.seq for item in answer.items]
            shown[name] = f"{seqs[0]} … {seqs[-1]}" if seqs else "empty"
    first_ms = statistics.median(took_ms["first page"])
    slow = 0
    print(f"\n{'page':32} {'seqs':>18} {'p50 ms':>8} {'p99 ms':>8} {'ratio':>6}")
    for name, times in took_ms.items():
        median_ms = statistics.median(times)
        worst_ms = sorted(times)[int(len(times) * 0.99)]
        slow += median_ms > RATIO_MAX * first_ms
        print(f"{name:32} {shown[name]:>18} {median_ms:8.2f} {worst_ms:8.2f} {median_ms / first_ms:6.2f}")
    return slow


async def run(uri: str, messages: int, rounds: int) -> int:
    """Fill, measure and explain; return the number of faults."""
    mongo = Mongo(uri, DATABASE, timeout_s=60.0)
    await mongo.wait_ready(INDEXES)
    stores = Stores.on(mongo.database)
    started_s = time.perf_counter()
    await fill(mongo.database, ROOM, messages, rooms=2_000, users=1_000)
    took_s = time.perf_counter() - started_s
    print(f"filled in {took_s:.1f} s: {messages:,} messages in one room, 2,000 rooms, 6,000 members")
    presence = Presence(stores.presence, NoBus(), "node_1", now_ms, PresenceTimes(), lambda: None)
    handler = ChatQueryHandler(
        stores.rooms, stores.messages, stores.room_log, presence, MessageSearch(stores.index), now_ms
    )
    faults = await measure(handler, messages, rounds)
    mongo.close()
    plans, made = await explained(uri, DATABASE, ROOM, messages)
    print(f"\n{len(plans)} different plans of {len(made)} calls of chat_service's stores:")
    for plan in plans:
        print(f"  {plan}")
        for fault in plan.faults:
            print(f"    FAULT: {fault}")
        faults += len(plan.faults)
    for reason in {plan.call.reason: None for plan in plans if plan.call.reason}:
        names = {f"{plan.call.name} {plan.call.note}".strip(): None for plan in plans if plan.call.reason == reason}
        print(f"  may examine more: {', '.join(names)}: {reason}")
    for name in sorted(calls_not_made(made)):
        print(f"  FAULT: {name} is not among the calls")
        faults += 1
    return faults


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=200, help="how often each page is read")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Database(Path(directory)) as database:
        faults = asyncio.run(run(database.uri, arguments.messages, arguments.rounds))
    print(f"faults: {faults}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
