"""The system on a three-node broker cluster: nodes killed, frozen and restarted, and queues deleted, under load.

`make test-long TESTS=tests/cluster` prints a table: the longest time without an ack in any room, in one room, and
without a successful read, from the fault on. Every message must reach every subscriber once and in order throughout.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CalledProcessError

import pytest

from shared.ids import Prefix, new_id
from tests.chaos.client import ChaosClient
from tests.chaos.ledger import Ledger
from tests.chaos.settle import Settling
from tests.chaos.system import SETTINGS, ReplicatedSystem
from tests.chaos.traffic import EventPublisher, Traffic, TrafficRates, quiet_connections
from tests.cluster.pulse import Pauses, Pulse
from tests.support.broker_cluster import BrokerCluster
from tests.support.infrastructure import Database
from tests.support.live_client import RestClient
from tests.support.local_system import LocalSystem
from tests.support.services import free_port
from tests.support.waiting import until, until_async

pytestmark = pytest.mark.long

ROOMS = 8
CLIENTS = 6
SYMBOLS = ("CLUSTER1", "CLUSTER2")
START_TIMEOUT_S = 30.0
READY_TIMEOUT_S = 15.0
WARM_S = 3.0
HOLD_S = 12.0  # with a node less
AFTER_S = 4.0  # with all nodes back
DELETED_PAUSE_S = 4.0  # between two deletions
QUEUES_BACK_TIMEOUT_S = 10.0
PAUSE_MAX_S = 2.0
FROZEN_PAUSE_MAX_S = 10.0
DELETED_PAUSE_MAX_S = 10.0
SPACING_S = 0.25  # of acks in one room, and of reads, without a fault
NEVER = 1e-9


@dataclass
class ClusterRow:
    """One row of the table."""

    fault: str
    pauses: Pauses
    acked: int
    resent: int
    closed: int
    note: str = ""

    def __str__(self) -> str:
        reads = "  ".join(f"{kind} {pause_s:.1f}" for kind, pause_s in sorted(self.pauses.reads.items()))
        return (
            f"{self.fault:34} {self.pauses.acks:6.2f} {self.pauses.room:8.2f} {self.pauses.worst_read:8.2f}"
            f" {self.acked:7} {self.resent:7} {self.closed:7}   {reads}  {self.note}"
        )


HEAD = f"{'fault':34} {'acks s':>6} {'a room':>8} {'reads s':>8} {'acked':>7} {'resent':>7} {'closed':>7}"


@dataclass
class ClusterStage:
    """The system on its cluster, and the table."""

    system: ReplicatedSystem
    cluster: BrokerCluster
    rows: list[ClusterRow] = field(default_factory=list)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ClusterStage]:
    directory: Path = tmp_path_factory.mktemp("cluster")
    with (
        quiet_connections(),
        BrokerCluster(directory / "rabbitmq") as cluster,
        Database(directory / "database") as data,
    ):
        settings = {
            **SETTINGS,
            "MARKET_FEEDS": "1",
            "NOTIFIERS": "1",
            "GATEWAY_PORT": str(free_port()),
            "AMQP_URL": cluster.amqp_url,
            "MONGODB_URI": data.uri,
            "MONGODB_DATABASE": new_id(Prefix.COMMAND),
        }
        with LocalSystem(directory / "system", settings) as local:
            stage = ClusterStage(ReplicatedSystem(local, cluster.control), cluster)
            yield stage
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if reporter is not None and capture is not None:
        with capture.global_and_fixture_disabled():  # else pytest shows it after a failure only
            reporter.write_line("")
            for line in (HEAD, *map(str, stage.rows)):
                reporter.write_line(line)


class FaultTrial:
    """The load around one fault. `pauses` measures from the last `begin`."""

    def __init__(self, stage: ClusterStage, publisher: EventPublisher, *, notifications: bool) -> None:
        started_s = time.monotonic()
        self.clock: Callable[[], float] = lambda: time.monotonic() - started_s
        self.ledger = Ledger()
        self.publisher = publisher
        self.begun_s = 0.0
        self._stage = stage
        self._rates = TrafficRates(NEVER)
        self._rates.notifications, self._rates.ticks = 2.0 if notifications else NEVER, 2.0

    async def prepare(self) -> None:
        """Create rooms, connect clients, and begin the load."""
        url = self._stage.system.url
        admin = RestClient(url, "cluster-operator", role="admin")
        self.rooms = [await admin.create_room(f"Cluster {number}") for number in range(ROOMS)]
        users = [f"{new_id(Prefix.COMMAND)}-{number}" for number in range(CLIENTS)]
        self.clients = [ChaosClient(user, user, url, self.ledger, self.clock, self.rooms, SYMBOLS) for user in users]
        self.traffic = Traffic(url, self.clients, self.publisher, self.ledger, self.clock, seed=1)
        self.pulse = Pulse(url, self.clients, self.rooms, self.ledger, self.clock)
        self.living = [asyncio.create_task(client.run()) for client in self.clients]
        await self.traffic.quote(SYMBOLS)
        await until(lambda: all(client.is_ready for client in self.clients), START_TIMEOUT_S)
        self.acting = asyncio.create_task(self.traffic.run(self._rates, self.rooms, [], ""))
        self.beating = asyncio.create_task(self.pulse.run())
        await asyncio.sleep(WARM_S)

    def begin(self) -> None:
        """Mark the fault."""
        self.begun_s = self.clock()

    async def finish(self, fault: str, note: str = "") -> Pauses:
        """End the load, wait until everything arrived, add a row to the table, and return the pauses."""
        await asyncio.sleep(AFTER_S)
        pauses = self.pulse.pauses(self.begun_s, self.clock())
        self.traffic.stop()
        self.pulse.stop()
        await asyncio.gather(self.acting, self.beating)
        self._add_row(fault, pauses, note)
        settling = Settling(self._stage.system, self.traffic, self.ledger, self.clock)
        await settling.acks()
        await settling.prices()
        await settling.stored(self.rooms, [])
        await settling.deliveries()
        return pauses

    def _add_row(self, fault: str, pauses: Pauses, note: str) -> None:
        closed = sum(count for client in self.clients for count in client.closes.values())
        resent = sum(client.resent for client in self.clients)
        acked = sum(len(self.ledger.acked.get(f"room:{room}", {})) for room in self.rooms)
        self._stage.rows.append(ClusterRow(fault, pauses, acked, resent, closed, note))

    async def end(self) -> None:
        """Disconnect."""
        for task in self.living:
            task.cancel()
        await asyncio.gather(*self.living, return_exceptions=True)
        await self.publisher.close()


@asynccontextmanager
async def under_load(stage: ClusterStage, publish_to: int, *, notifications: bool = True) -> AsyncIterator[FaultTrial]:
    """Yield a running load, whose events enter by one node. Fails at the end if anything was lost or repeated."""
    trial = FaultTrial(stage, EventPublisher(stage.cluster.members[publish_to].url), notifications=notifications)
    try:
        await trial.prepare()
        yield trial
    finally:
        await trial.end()
        await asyncio.to_thread(stage.cluster.heal)
    violations = trial.ledger.check()
    assert not violations, "\n".join(map(str, violations[:10]))
    await all_ready(stage)


async def all_ready(stage: ClusterStage) -> None:
    """Wait until every process reports ready."""

    async def unready() -> list[str]:
        names = [name for name in stage.system.names if stage.system.pid(name) is not None]
        return [name for name in names if not await asyncio.to_thread(stage.system.is_ready, name)]

    await until_async(unready, lambda found: not found, READY_TIMEOUT_S)


def assert_within(pauses: Pauses, limit_s: float) -> None:
    """Fail if acks of any room or a kind of read paused for longer than the limit."""
    assert pauses.room <= limit_s + SPACING_S, pauses
    assert pauses.worst_read <= limit_s + SPACING_S, pauses


@pytest.mark.parametrize("victim", range(3))
async def test_acks_and_reads_survive_killed_node(stage: ClusterStage, victim: int) -> None:
    member = stage.cluster.members[victim]
    async with under_load(stage, (victim + 1) % 3) as trial:
        trial.begin()
        await asyncio.to_thread(member.kill)
        await asyncio.sleep(HOLD_S)
        await asyncio.to_thread(stage.cluster.heal)
        pauses = await trial.finish(f"kill -9 of {member.name}")
    assert_within(pauses, PAUSE_MAX_S)


async def test_acks_and_reads_survive_frozen_node(stage: ClusterStage) -> None:
    member = stage.cluster.members[0]
    async with under_load(stage, 1) as trial:
        trial.begin()
        member.freeze()
        await asyncio.sleep(HOLD_S + FROZEN_PAUSE_MAX_S)
        restarted = await asyncio.to_thread(stage.cluster.heal)
        note = f"restarted after the thaw: {', '.join(restarted) or 'none'}"
        pauses = await trial.finish(f"SIGSTOP of {member.name}", note)
    assert_within(pauses, FROZEN_PAUSE_MAX_S)


async def test_acks_and_reads_survive_rolling_restart(stage: ClusterStage) -> None:
    async with under_load(stage, 0) as trial:
        trial.begin()
        await asyncio.to_thread(stage.cluster.rolling_restart)
        pauses = await trial.finish("rolling restart")
    assert_within(pauses, PAUSE_MAX_S)


async def test_deleted_queues_return(stage: ClusterStage) -> None:
    cluster = stage.cluster
    before = await asyncio.to_thread(cluster.queues)
    assert before
    async with under_load(stage, 0, notifications=False) as trial:
        trial.begin()
        deleted = 0
        for name in before:
            deleted += await try_delete(cluster, name)
            await asyncio.sleep(DELETED_PAUSE_S)
        assert deleted
        pauses = await trial.finish("each queue deleted", f"{deleted} of {len(before)} deleted")
    kinds = kinds_of(before)
    after = await until_async(
        lambda: asyncio.to_thread(lambda: kinds_of(cluster.queues())), kinds.__eq__, QUEUES_BACK_TIMEOUT_S
    )
    assert after == kinds
    assert_within(pauses, DELETED_PAUSE_MAX_S)


def kinds_of(queues: list[str]) -> list[str]:
    """Return the names without the number of the connection: it grows when a queue of a process comes back."""
    return sorted(name.rpartition(".")[0] if ".node_" in name else name for name in queues)


async def try_delete(cluster: BrokerCluster, name: str) -> bool:
    """Delete a queue, and return False if it is gone or the broker does not let an operator delete it."""
    try:
        return await asyncio.to_thread(cluster.delete_queue, name)
    except CalledProcessError:
        return False
