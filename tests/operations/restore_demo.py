"""Lose the database and restore a backup, without a restart of any gateway: `make restore-demo`.

Two replicas of each worker and two gateways behind HAProxy serve chatting clients, notifications and prices. The
backup is a copy of the data files while the server is frozen, as a snapshot of a volume with its journal is; clients
write on. Then the server is killed and its files are deleted. The steps are those of docs/operations.md: stop the
workers, put the files back, drop the generation, start chat_service, then the others.

Clients come back by themselves. Whoever is ahead of the backup must be told so, in every room and in the inbox, and
must then receive everything once and in order; prices must go on with higher seqs. Messages sent after the backup are
gone, which is counted. Senders rest from the loss until everybody is back: see "A client that comes back only after a
room has grown beyond its `since`" in docs/operations.md. Exits with 1 on any fault.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from shared.generation_store import COLLECTION
from tests.chaos.settle import history, inbox
from tests.operations.events import NotificationPublisher
from tests.operations.installation import DATABASE, SYMBOLS, WORKERS, Installation, stop_all
from tests.operations.stage import Stage, on_stage
from tests.operations.verdict import inbox_faults, message_faults, pause_since, until_delivered, until_notified
from tests.support.live_client import RestClient
from tests.support.release import TODAY
from tests.support.waiting import until

GATEWAYS = 2
NOTIFIED = 20
EVENTS_PER_S = 5.0
CLOSED_TIMEOUT_S = 60.0
INBOX = "inbox"  # in place of a room


@dataclass
class DataLoss:
    """The installation, its clients, and what they knew when the data was lost."""

    site: Installation
    stage: Stage
    publisher: NotificationPublisher
    backup: Path
    rate: float

    async def talk(self, seconds: float) -> None:
        """Send and publish for a time, and wait until everything is acknowledged."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.stage.talk(self.rate, stop))
            tasks.create_task(self.publisher.run(EVENTS_PER_S, stop))
            await asyncio.sleep(seconds)
            stop.set()

    def back_up(self) -> float:
        """Copy the data files as they are at one moment; return the seconds for which the database stood still."""
        database = self.site.infrastructure.database
        started_s = time.monotonic()
        database.process.signal(signal.SIGSTOP)
        try:
            shutil.copytree(database.data, self.backup)
        finally:
            database.process.signal(signal.SIGCONT)
        return time.monotonic() - started_s

    def lose(self) -> None:
        """Kill the database and delete its files."""
        database = self.site.infrastructure.database
        database.kill()
        shutil.rmtree(database.data)

    def restore(self) -> None:
        """Stop the workers, put the backup in place, and start everything again, as docs/operations.md says."""
        stop_all(self.site.workers())
        database = self.site.infrastructure.database
        shutil.copytree(self.backup, database.data, dirs_exist_ok=True)
        database.start()
        with MongoClient[dict[str, Any]](self.site.infrastructure.mongodb_uri) as client:
            client[DATABASE][COLLECTION].drop()
        for kind in WORKERS:
            self.site.start_workers(TODAY, kind)

    def positions(self) -> dict[tuple[str, str], int]:
        """Return the last seq that each client has of each room and of its inbox."""
        known: dict[tuple[str, str], int] = {}
        for trader in self.stage.traders:
            known |= {(trader.name, room): max(seqs, default=0) for room, seqs in trader.seqs.items()}
            known[trader.name, INBOX] = max(trader.inbox or [0])
        return known

    async def heads(self, histories: Mapping[str, Sequence[int]]) -> dict[tuple[str, str], int]:
        """Return the last seq that is stored for each of `positions`."""
        heads = {(trader.name, room): len(histories[room]) for trader in self.stage.traders for room in trader.seqs}
        for user in self.publisher.published:
            heads[user, INBOX] = len(await inbox(RestClient(self.stage.balancer.url, user)))
        return heads

    def forget_what_is_gone(self, heads: Mapping[tuple[str, str], int]) -> int:
        """Forget the acknowledgements and events beyond the backup; return the number of messages."""
        gone = 0
        for trader in self.stage.traders:
            lost = [key for key, (room, seq) in trader.acked.items() if seq > heads[trader.name, room]]
            for key in lost:
                del trader.acked[key]
            gone += len(lost)
        for user in self.publisher.published:
            self.publisher.published[user] = heads[user, INBOX]
        return gone


async def histories_of(stage: Stage) -> dict[str, list[int]]:
    """Return the seqs of every stored message, by room."""
    return {room: [item.seq for item in await history(stage.operator, room)] for room in stage.rooms}


async def settle(loss: DataLoss) -> dict[str, list[int]]:
    """Wait until everything is delivered, and return what is stored."""
    histories = await histories_of(loss.stage)
    await until_delivered(loss.stage.traders, histories)
    await until_notified(loss.stage.traders, loss.publisher.published)
    return histories


async def play(loss: DataLoss, seconds: float) -> dict[str, int]:
    """Run the scenes and return the faults."""
    traders = loss.stage.traders
    pids = [gateway.pid for gateway in loss.stage.gateways]
    await loss.talk(seconds)
    await settle(loss)
    talking = asyncio.create_task(loss.talk(seconds))
    await asyncio.sleep(seconds / 2)
    print(f"  backup in use: the database stood still for {await asyncio.to_thread(loss.back_up):.2f} s", flush=True)
    await talking
    await settle(loss)
    before, moved = loss.positions(), [len(trader.closes) for trader in traders]
    await asyncio.to_thread(loss.lose)
    lost_s = time.monotonic()
    await asyncio.to_thread(loss.restore)
    print(f"  restored and started {time.monotonic() - lost_s:.1f} s after the loss", flush=True)
    await until(lambda: all(len(one.closes) > n for one, n in zip(traders, moved, strict=True)), CLOSED_TIMEOUT_S)
    await loss.stage.all_connected()
    print(f"  every client is back {time.monotonic() - lost_s:.1f} s after the loss", flush=True)
    heads = await loss.heads(await histories_of(loss.stage))
    ahead = sum(seq > heads.get(place, 0) for place, seq in before.items())
    told = sum(trader.not_recovered for trader in traders)
    print(
        f"  messages acknowledged after the backup, gone with the data: {loss.forget_what_is_gone(heads)}", flush=True
    )
    print(f"  positions beyond the backup: {ahead}; clients told of theirs: {told}", flush=True)
    started_s = time.monotonic()
    await loss.talk(seconds)
    print(f"  after the restore: {pause_since(traders, started_s)}", flush=True)
    histories = await settle(loss)
    faults = message_faults(traders, histories) | inbox_faults(traders, loss.publisher.published)
    faults["resumptions not recovered"] = abs(told - ahead) + int(not ahead)
    faults["gateways restarted"] = sum(
        not one.is_running() or one.pid != pid for one, pid in zip(loss.stage.gateways, pids, strict=True)
    )
    return faults


async def run(site: Installation, directory: Path, arguments: argparse.Namespace) -> dict[str, int]:
    """Bring the installation and its clients up, run the scenes and return the faults."""
    await asyncio.to_thread(site.start_workers, TODAY)
    async with on_stage(site.balancer, [], SYMBOLS, has_inbox=True) as stage:
        for number in range(1, GATEWAYS + 1):
            stage.gateways.append(site.gateway(number, TODAY))
            await stage.add(stage.gateways[-1])
        await stage.make_rooms(arguments.rooms)
        await stage.come(arguments.clients)
        publisher = NotificationPublisher(
            site.environment["AMQP_URL"], [trader.name for trader in stage.traders[:NOTIFIED]]
        )
        return await play(DataLoss(site, stage, publisher, directory / "backup", arguments.rate), arguments.seconds)


def main() -> None:
    """Parse the command line, run, and exit with 1 on faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rooms", type=int, default=20)
    parser.add_argument("--rate", type=float, default=40.0, help="messages per second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load before, around and after the loss")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Installation(Path(name)) as site:
        faults = asyncio.run(run(site, Path(name), arguments))
    for kind, count in faults.items():
        print(f"  {kind:42} {count}")
    print(f"faults: {sum(faults.values())}")
    sys.exit(1 if any(faults.values()) else 0)


if __name__ == "__main__":
    main()
