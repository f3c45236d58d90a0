"""Ownership of the symbols: killed, frozen and thawed owners, and two owners at once."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from market_feed.announcer import Announcer
from market_feed.journal import Journal
from market_feed.lease import Lease
from market_feed.market import JournalBatch, Market
from market_feed.quotes import Tick
from market_feed.store import INDEXES, MarketStore
from shared.bus.bus import Bus
from shared.bus.liveness_queue import LivenessQueue
from shared.errors import Unavailable
from shared.ids import Prefix, new_id
from shared.mongo import Database
from shared.times import now_ms
from tests.support.infrastructure import Infrastructure
from tests.support.market import MarketClient, market_client
from tests.support.ready_database import ready_database
from tests.support.service_process import Process, service_processes
from tests.support.waiting import until, until_async

LEASE_S = 5.0  # the default
TICK_TTL_S = 3600.0


@pytest.fixture
async def client(amqp_url: str) -> AsyncIterator[MarketClient]:
    async with market_client(amqp_url) as client:
        yield client


@pytest.fixture
def environment(amqp_url: str, mongodb_uri: str, database_name: str) -> dict[str, str]:
    return {
        "AMQP_URL": amqp_url,
        "MONGODB_URI": mongodb_uri,
        "MONGODB_DATABASE": database_name,
        "MARKET_SOURCE": "sim",
        "MARKET_SYMBOLS": "EUR/USD",
        "MARKET_SIM_TICKS_PER_S": "20",
    }


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        yield database


@pytest.fixture
def store(database: Database) -> MarketStore:
    return MarketStore(database, TICK_TTL_S, now_ms)


@pytest.fixture
async def bus(amqp_url: str) -> AsyncIterator[Bus]:
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        await bus.wait_connected()
        yield bus


# Processes ------------------------------------------------------------------------------------------------------------


async def owner_of(processes: list[Process]) -> Process:
    """Return the process that owns the symbols, as soon as there is one."""

    async def look() -> list[Process]:
        owners: list[Process] = []
        async with aiohttp.ClientSession() as http:
            for process in processes:
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{process.admin_url}/metrics") as response:
                        if "market_owner 1.0" in await response.text():
                            owners.append(process)
        return owners

    return (await until_async(look, lambda owners: len(owners) == 1, timeout_s=20))[0]


def other_than(process: Process, processes: list[Process]) -> Process:
    return next(other for other in processes if other is not process)


async def test_prices_continue_before_lease_of_killed_owner_ends(
    client: MarketClient, environment: dict[str, str]
) -> None:
    async with service_processes("market_feed", environment, environment) as processes:
        for process in processes:
            await process.ready()
        for _ in range(2):
            owner = await owner_of(processes)
            await until(client.has_received(len(client.frames) + 5))
            killed_s = time.monotonic()
            await owner.end(signal.SIGKILL)
            received = len(client.frames)  # nothing of the dead one is on its way any more
            await until(client.has_received(received + 5))
            assert time.monotonic() - killed_s < LEASE_S - 1
            await owner.start()


async def test_frozen_owner_is_replaced_and_thawed_one_writes_nothing(
    client: MarketClient, environment: dict[str, str]
) -> None:
    """Events are published before, while and after the owner is frozen; each takes effect once."""
    environment = {**environment, "MARKET_SOURCE": "amqp"}
    published = 0

    async def publish(count: int) -> None:
        nonlocal published
        for _ in range(count):
            await client.publish({"symbol": "ICE", "price": 2, "volume": 1})
            published += 1

    async def volume() -> float | None:
        with suppress(Unavailable, IndexError):
            return (await client.prices("ICE")).prices[0].volume
        return None

    async with service_processes("market_feed", environment, environment) as processes:
        for process in processes:
            await process.ready()
        owner = await owner_of(processes)
        other = other_than(owner, processes)
        await publish(20)
        os.kill(owner.pid, signal.SIGSTOP)
        try:
            frozen_s = time.monotonic()
            await publish(20)  # some of them wait in the frozen process, unacknowledged
            assert await owner_of([other]) is other
            assert time.monotonic() - frozen_s < LEASE_S + 2
            await publish(20)
        finally:
            os.kill(owner.pid, signal.SIGCONT)
        await until_async(volume, lambda found: found == published, timeout_s=30)
        assert await owner_of(processes) is other
        await publish(20)
        await until_async(volume, lambda found: found == published, timeout_s=30)
        assert not await client.dead_letters()


# Two owners at once ---------------------------------------------------------------------------------------------------


class MarketOwner:
    """One owner with a lease that never ends by itself: only the journal can stop it."""

    def __init__(self, store: MarketStore, bus: Bus, term: int) -> None:
        self.market = Market(term)
        self.ended = asyncio.Event()
        self.journal = Journal(self.market, store, Announcer(bus), lambda: True, self.ended, now_ms)

    async def commit(self, *prices: float) -> None:
        self.market.ingest([Tick("X", price, now_ms(), volume=1.0) for price in prices])
        await self.journal.commit()

    @property
    def volume(self) -> float | None:
        return self.market.quotes["X"].volume


class ReadGate(MarketStore):
    """A store whose reads of the journal end only when the test lets them."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, TICK_TTL_S, now_ms)
        self.read = asyncio.Event()
        self.go_on = asyncio.Event()

    async def batches_after(self, number: int) -> AsyncIterator[JournalBatch]:
        async for batch in super().batches_after(number):
            yield batch
        self.read.set()
        await self.go_on.wait()


async def test_batch_written_after_new_owner_has_read_is_applied(
    database: Database, store: MarketStore, bus: Bus
) -> None:
    old = MarketOwner(store, bus, 1)
    await old.journal.recover()
    await old.commit(1.0)
    gate = ReadGate(database)
    new = MarketOwner(gate, bus, 2)
    recovering = asyncio.create_task(new.journal.recover())
    await gate.read.wait()
    await old.commit(2.0, 3.0)  # acknowledged: the new owner must apply it
    gate.go_on.set()
    await recovering
    assert new.volume == 3.0
    assert not new.ended.is_set()


async def test_old_owner_cannot_write_after_claim(store: MarketStore, bus: Bus) -> None:
    old, new = MarketOwner(store, bus, 1), MarketOwner(store, bus, 2)
    await old.journal.recover()
    await old.commit(1.0)
    await new.journal.recover()
    with pytest.raises(Unavailable):
        await old.commit(2.0)
    assert old.ended.is_set()
    await new.commit(4.0)
    with pytest.raises(Unavailable):
        await old.journal.checkpoint()
    await new.journal.checkpoint()
    third = MarketOwner(store, bus, 3)
    await third.journal.recover()
    assert third.volume == new.volume == 2.0
    assert third.market.quotes["X"].price == 4.0


async def test_stale_cut_does_not_overwrite_newer_one(store: MarketStore, bus: Bus) -> None:
    """The old owner is frozen between its last batch and the checkpoint after it."""
    old, new = MarketOwner(store, bus, 1), MarketOwner(store, bus, 2)
    await old.journal.recover()
    await old.commit(1.0)
    await new.journal.recover()
    await new.commit(2.0)
    await new.journal.checkpoint()
    with pytest.raises(Unavailable):
        await old.journal.checkpoint()
    assert old.ended.is_set()
    third = MarketOwner(store, bus, 3)
    await third.journal.recover()
    assert third.volume == 2.0


async def test_owner_that_froze_before_its_claim_does_not_fence_off_newer_owner(
    database: Database, store: MarketStore, bus: Bus
) -> None:
    gate = ReadGate(database)
    frozen = MarketOwner(gate, bus, 1)
    recovering = asyncio.create_task(frozen.journal.recover())
    await gate.read.wait()
    new = MarketOwner(store, bus, 2)
    await new.journal.recover()
    gate.go_on.set()
    with pytest.raises(Unavailable):
        await recovering
    assert frozen.ended.is_set()
    await new.commit(1.0)
    assert not new.ended.is_set()


async def test_repeated_append_of_own_batch_takes_effect_once(store: MarketStore) -> None:
    market = Market(1)
    market.ingest([Tick("X", 1.0, now_ms())])
    batch = market.pop_batch()
    assert batch is not None
    await store.append(batch)
    await store.append(batch)  # the first answer was lost
    assert [found.number async for found in store.batches_after(0)] == [batch.number]


async def test_batches_continue_after_those_of_release_0_2(database: Database, store: MarketStore, bus: Bus) -> None:
    """Release 0.2 numbered batches by term, without a field for it."""
    old = MarketOwner(store, bus, 1)
    old.market.continue_after(10_000_000_000)
    await old.commit(1.0)
    await database["market_ticks"].update_many({}, {"$unset": {"term": 1}})
    new = MarketOwner(store, bus, 2)
    await new.journal.recover()
    assert new.volume == 1.0
    with pytest.raises(Unavailable):
        await old.commit(2.0)
    await new.commit(3.0)
    assert not new.ended.is_set()


# The lease ------------------------------------------------------------------------------------------------------------


async def test_lease_is_measured_by_database(store: MarketStore) -> None:
    taken = await store.take_lease(Lease(), "node_a", "life.a")
    assert taken is not None and taken.term == 1
    assert await store.beat(1, 1, "node_a", "life.a")
    seen = await store.lease()
    assert (seen.beat, seen.queue) == (1, "life.a")
    assert seen.age_s is not None and seen.age_s < 5
    later = await until_async(store.lease, lambda found: (found.age_s or 0) >= 0.05)
    assert await store.take_lease(later, "node_b", "life.b") is not None
    assert await store.take_lease(later, "node_c", "life.c") is None
    assert not await store.beat(1, 2, "node_a", "life.a")


async def test_beat_between_look_and_takeover_keeps_lease(store: MarketStore) -> None:
    await store.take_lease(Lease(), "node_a", None)
    seen = await store.lease()
    assert await store.beat(1, 1, "node_a", None)
    assert await store.take_lease(seen, "node_b", None) is None


async def test_beat_of_release_0_2_has_no_age(database: Database, store: MarketStore) -> None:
    """It increments `beat` alone, over the stamp of an earlier holder or none."""
    await store.take_lease(Lease(), "node_a", "life.a")
    await database["market_lease"].update_one({}, {"$inc": {"beat": 1}})
    assert (await store.lease()).age_s is None


# The queue of a process -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(amqp_url: str, name: str) -> AsyncIterator[LivenessQueue]:
    liveness = LivenessQueue(amqp_url, name)
    running = asyncio.create_task(liveness.run())
    try:
        await until(lambda: liveness.queue is not None)
        yield liveness
    finally:
        liveness.leave()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_queue_is_gone_with_its_connection_only(amqp_url: str) -> None:
    async with connected(amqp_url, new_id(Prefix.NODE)) as looking:
        async with connected(amqp_url, new_id(Prefix.NODE)) as other:
            queue = other.queue
            assert queue is not None
            for _ in range(3):
                assert not await looking.is_gone(queue)
        await until_async(lambda: looking.is_gone(queue), bool)
        assert looking.queue is not None
        assert not await looking.is_gone(looking.queue)


async def test_deleted_queue_returns_under_another_name(amqp_url: str, infrastructure: Infrastructure) -> None:
    async with connected(amqp_url, new_id(Prefix.NODE)) as liveness:
        deleted = liveness.queue
        assert deleted is not None
        await asyncio.to_thread(infrastructure.broker.control, "delete_queue", deleted)
        await until(lambda: liveness.queue not in {None, deleted})


async def test_nothing_is_gone_without_connection(amqp_url: str) -> None:
    assert not await LivenessQueue(amqp_url, new_id(Prefix.NODE)).is_gone("life.none")
