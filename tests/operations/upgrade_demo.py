"""Upgrade a running installation, service by service, and back again: `make upgrade-demo`.

The previous release (RELEASE=…, otherwise the newest tag) runs with two replicas of each worker and two gateways behind
HAProxy. Clients chat through it, an internal service publishes notifications, prices move. Then every service is
replaced by today's in the documented order, and the first new replica of chat_service is killed while it migrates.
Afterwards everything goes back. Every acknowledged message must be stored once and reach every subscriber once and in
order, and so must every notification. Prints the pauses of each step and the counts; exits with 1 on any fault.

A release of 0.2 is upgraded as docs/operations.md says: chat_service stops first, the migration is killed and
continued, and there is no way back.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from tests.chaos.settle import history
from tests.operations.events import NotificationPublisher
from tests.operations.installation import DATABASE, SYMBOLS, WORKERS, Installation, Worker, begin, roll, stop_all
from tests.operations.stage import Stage, on_stage
from tests.operations.verdict import inbox_faults, message_faults, pause_since, until_delivered, until_notified
from tests.support.release import TODAY, Release, checked_out, newest_tag
from tests.support.waiting import until_async

GATEWAYS = 2
MIGRATION_LOOK_S = 0.005
MIGRATION_BEGINS_WITHIN_S = 20.0
NOTIFIED = 20
EVENTS_PER_S = 5.0
SEARCH_TIMEOUT_S = 60.0
OLD_LOG = Path("chat_service/storage/log_store.py")  # a release without it keeps rooms in the collections of 0.2


@dataclass
class Upgrade:
    """The installation, its clients, and the release of the gateways that come next."""

    site: Installation
    stage: Stage
    old: Release
    numbers: int = 0
    found: int = 0

    async def step(self, what: str, work: Callable[[], Awaitable[object]], rest_s: float) -> None:
        """Do a step under load, and print its pauses."""
        started_s = time.monotonic()
        await work()
        await self.stage.all_connected()
        took_s = time.monotonic() - started_s
        await asyncio.sleep(rest_s)
        print(f"  {what:34} {took_s:5.1f} s: {pause_since(self.stage.traders, started_s)}", flush=True)

    async def roll(self, kind: str, release: Release) -> None:
        """Replace the replicas of a worker, one after the other."""
        await asyncio.to_thread(roll, self.site.workers(kind), release)

    async def add_gateway(self, release: Release) -> None:
        """Start one more gateway."""
        self.numbers += 1
        gateway = self.site.gateway(self.numbers, release)
        self.stage.gateways.append(gateway)
        await self.stage.add(gateway)

    async def roll_gateways(self, release: Release) -> None:
        """Start a new gateway before each old one drains."""
        for gateway in [one for one in self.stage.gateways if one.is_running()]:
            await self.add_gateway(release)
            await self.stage.scale_away(gateway)
            await self.stage.all_connected()

    # The migration --------------------------------------------------------------------------------------------------

    async def migrate_with_kill(self) -> None:
        """Replace the first replica of chat_service, kill the new one in its migration, and go on with all."""
        first, *others = self.site.workers("chat_service")
        await asyncio.to_thread(first.stop)
        first.begin(TODAY)
        print(f"  chat_service killed {await self._kill_in_migration(first, 'message_words')}", flush=True)
        await asyncio.to_thread(begin, [first], TODAY)
        await asyncio.to_thread(roll, others, TODAY)

    async def migrate_stopped(self) -> None:
        """Stop chat_service of 0.2, migrate to the room log, and kill the migration half-way."""
        replicas = self.site.workers("chat_service")
        await asyncio.to_thread(stop_all, replicas)
        first, *others = replicas
        first.begin(TODAY)
        print(f"  chat_service killed {await self._kill_in_migration(first, 'room_log')}", flush=True)
        await asyncio.to_thread(begin, [first, *others], TODAY)

    async def _kill_in_migration(self, worker: Worker, name: str) -> str:
        deadline_s = time.monotonic() + MIGRATION_BEGINS_WITHIN_S
        while time.monotonic() < deadline_s:
            state = await asyncio.to_thread(self.migration_state, name)
            if state:
                await asyncio.to_thread(worker.kill)
                return f"in the migration {name}: {_progress(await asyncio.to_thread(self.migration_state, name))}"
            await asyncio.sleep(MIGRATION_LOOK_S)
        await asyncio.to_thread(worker.kill)
        return f"after its start: nothing to migrate ({name})"

    def migration_state(self, name: str) -> dict[str, Any]:
        """Return the document of a migration; empty before it begins."""
        with MongoClient[dict[str, Any]](self.site.infrastructure.mongodb_uri) as client:
            return client[DATABASE]["migrations"].find_one({"_id": name}) or {}

    async def until_indexed(self) -> int:
        """Wait until the search index is complete, and return the hits of a word of every message in a room."""

        async def done() -> bool:
            state = await asyncio.to_thread(self.migration_state, "message_words")
            return sum(name.startswith("done_") for name in state) == 16

        await until_async(done, bool, SEARCH_TIMEOUT_S)
        found = await self.stage.operator.data("GET", f"/v1/chatrooms/{self.stage.rooms[0]}/messages/search?q=order")
        return len(found)


def _progress(state: dict[str, Any]) -> str:
    """Return how far a migration is."""
    done = sum(name.startswith("done_") for name in state)
    return "done" if state.get("done") else f"{done} of 16 partitions" if done else f"steps {sorted(state)[1:]}"


async def go_over(upgrade: Upgrade, rest_s: float) -> None:
    """Replace everything by today's release, in the documented order."""
    is_from_0_2 = not (upgrade.old.tree / OLD_LOG).exists()
    migrate = upgrade.migrate_stopped if is_from_0_2 else upgrade.migrate_with_kill
    await upgrade.step("chat_service to today", migrate, rest_s)
    for kind in WORKERS[1:]:
        await upgrade.step(f"{kind} to today", lambda kind=kind: upgrade.roll(kind, TODAY), rest_s)  # type: ignore[misc]
    await upgrade.step("gateways to today", lambda: upgrade.roll_gateways(TODAY), rest_s)
    upgrade.found = await upgrade.until_indexed()
    print(f"  messages found by search once all are indexed: {upgrade.found}", flush=True)
    if not is_from_0_2:
        await go_back(upgrade, rest_s)


async def go_back(upgrade: Upgrade, rest_s: float) -> None:
    """Replace everything by the previous release, in the reverse order."""
    old = upgrade.old
    await upgrade.step("gateways back", lambda: upgrade.roll_gateways(old), rest_s)
    for kind in reversed(WORKERS):
        await upgrade.step(f"{kind} back", lambda kind=kind: upgrade.roll(kind, old), rest_s)  # type: ignore[misc]


async def play(site: Installation, old: Release, arguments: argparse.Namespace) -> dict[str, int]:
    """Run the upgrade under load and return the faults."""
    await asyncio.to_thread(site.start_workers, old)
    async with on_stage(site.balancer, [], SYMBOLS, has_inbox=True) as stage:
        upgrade = Upgrade(site, stage, old)
        for _ in range(GATEWAYS):
            await upgrade.add_gateway(old)
        await stage.make_rooms(arguments.rooms)
        await stage.come(arguments.clients)
        publisher = NotificationPublisher(
            site.environment["AMQP_URL"], [trader.name for trader in stage.traders[:NOTIFIED]]
        )
        stop = asyncio.Event()
        work = [
            stage.tasks.create_task(stage.talk(arguments.rate, stop)),
            stage.tasks.create_task(publisher.run(EVENTS_PER_S, stop)),
        ]
        await upgrade.step(f"{old.name} under load", lambda: asyncio.sleep(arguments.seconds), 0)
        await go_over(upgrade, arguments.seconds)
        stop.set()
        await asyncio.gather(*work)
        return await judge(stage, publisher) | {"searches without a hit": int(not upgrade.found)}


async def judge(stage: Stage, publisher: NotificationPublisher) -> dict[str, int]:
    """Wait until everything is delivered, print the counts and return the faults."""
    histories = {room: [item.seq for item in await history(stage.operator, room)] for room in stage.rooms}
    await until_delivered(stage.traders, histories)
    await until_notified(stage.traders, publisher.published)
    counts = {
        "messages acked": sum(len(trader.acked) for trader in stage.traders),
        "deliveries": sum(len(seqs) for trader in stage.traders for seqs in trader.seqs.values()),
        "notifications": publisher.published.total(),
        "prices": sum(len(trader.priced_at_s) for trader in stage.traders),
        "sockets moved": sum(len(trader.closes) for trader in stage.traders),
    }
    faults = message_faults(stage.traders, histories) | inbox_faults(stage.traders, publisher.published)
    for name, count in {**counts, **faults}.items():
        print(f"  {name:42} {count}")
    return faults


def main() -> None:
    """Parse the command line, run, and exit with 1 on faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", help="a tag or commit; the newest tag without it")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rooms", type=int, default=20)
    parser.add_argument("--rate", type=float, default=40.0, help="messages per second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load after each step")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        old = checked_out(arguments.release or newest_tag(), Path(name) / "release")
        print(f"from {old.name} to today", flush=True)
        with Installation(Path(name)) as site:
            faults = asyncio.run(play(site, old, arguments))
    print(f"faults: {sum(faults.values())}")
    sys.exit(1 if any(faults.values()) else 0)


if __name__ == "__main__":
    main()
