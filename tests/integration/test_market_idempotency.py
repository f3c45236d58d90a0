"""A `market.tick` event takes effect once in 7 days: after restarts, changes of owner, and in a race with the index."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from market_feed.announcer import Announcer
from market_feed.journal import Journal
from market_feed.market import Market
from market_feed.quotes import Tick
from market_feed.settings import SourceKind
from market_feed.store import INDEXES, MarketStore
from shared.bus.bus import Bus
from shared.bus.events import short_event_key
from shared.ids import Prefix, new_id
from shared.mongo import Database
from shared.times import now_ms
from tests.support.market import market_client
from tests.support.ready_database import ready_database
from tests.support.services import market_feed
from tests.support.waiting import until, until_async

TICK_TTL_S = 3600.0
KEY, OTHER = short_event_key("/s", "1"), short_event_key("/s", "2")


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


class EventOwner:
    """One term of ownership that processes events as `TickEvents` does, with a window of one key."""

    def __init__(self, store: MarketStore, bus: Bus, term: int) -> None:
        self.market = Market(term, seen_max=1)
        self.journal = Journal(self.market, store, Announcer(bus), lambda: True, asyncio.Event(), now_ms)

    async def ingest(self, key: bytes) -> None:
        await self.journal.look_up([key])
        if self.market.seen.add(key):
            self.market.ingest([Tick("X", 1.0, now_ms(), volume=5.0)], event_keys=[key])
        await self.journal.commit()

    @property
    def volume(self) -> float | None:
        return self.market.quotes["X"].volume


async def journal_expired(database: Database) -> None:
    """Remove the journal before the checkpoint, as the server does after MARKET_TICK_TTL_S."""
    await database["market_ticks"].delete_many({})


@pytest.mark.parametrize("restart", [True, False], ids=["restart", "same process"])
async def test_event_published_again_counts_once(
    amqp_url: str, mongodb_uri: str, database_name: str, database: Database, restart: bool
) -> None:
    settings = {"market_source": (SourceKind.AMQP,), "market_cut_interval_s": 0.2}

    async def is_checkpoint_current() -> bool:
        head = await database["market_state"].find_one({"_id": "head"})
        last = await database["market_ticks"].find_one({}, sort=[("_id", -1)])
        return head is not None and last is not None and head["through"] >= last["_id"]

    async with market_client(amqp_url) as client:

        async def publish_and_wait(number: int) -> None:
            await client.publish({"symbol": "ADV/X", "price": 10.0, "volume": 5.0}, event_id="tick-1")
            await client.publish({"symbol": "END", "price": 1.0}, event_id=f"end-{number}")
            await until(lambda: len(client.applied_of("END")) == number)

        async with market_feed(amqp_url, mongodb_uri, database_name, **settings):
            await publish_and_wait(1)
            await publish_and_wait(2)
            await until_async(is_checkpoint_current, bool)
            await journal_expired(database)
            if not restart:
                await publish_and_wait(3)
                assert (await client.prices("ADV/X")).prices[0].volume == 5.0
        if restart:
            async with market_feed(amqp_url, mongodb_uri, database_name, **settings):
                await publish_and_wait(3)
                assert (await client.prices("ADV/X")).prices[0].volume == 5.0


async def test_event_counts_once_over_change_of_owner(database: Database, store: MarketStore, bus: Bus) -> None:
    first = EventOwner(store, bus, 1)
    await first.journal.recover()
    await first.ingest(KEY)  # in the journal, not in the index
    second = EventOwner(store, bus, 2)
    await second.journal.recover()
    await second.ingest(KEY)
    await second.ingest(OTHER)
    await second.journal.checkpoint()
    await journal_expired(database)
    third = EventOwner(store, bus, 3)
    await third.journal.recover()
    for key in (OTHER, KEY):
        await third.ingest(key)
    assert third.volume == 10.0


async def test_crash_between_index_and_head_counts_event_once(database: Database, store: MarketStore, bus: Bus) -> None:
    first = EventOwner(store, bus, 1)
    await first.journal.recover()
    await first.ingest(KEY)
    await first.journal.checkpoint()
    await database["market_state"].delete_many({})  # the checkpoint reached only the index
    second = EventOwner(store, bus, 2)
    await second.journal.recover()
    assert second.volume == 5.0
    await second.ingest(KEY)
    await second.journal.checkpoint()
    assert second.volume == 5.0


class SlowIndex(MarketStore):
    """A store whose first look into the index is answered only when the test lets it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, TICK_TTL_S, now_ms)
        self.looks = 0
        self.looked = asyncio.Event()
        self.answer = asyncio.Event()

    async def processed(self, event_keys: Sequence[bytes]) -> set[bytes]:
        found = await super().processed(event_keys)
        self.looks += 1
        if self.looks == 1:
            self.looked.set()
            await self.answer.wait()
        return found


async def test_event_indexed_and_forgotten_during_look_takes_effect_once(database: Database, bus: Bus) -> None:
    """Two batches hold the event. The second looks before the first ingests it, and ends after it is forgotten."""
    index = SlowIndex(database)
    owner = EventOwner(index, bus, 1)
    await owner.journal.recover()
    late = asyncio.create_task(owner.ingest(KEY))
    await index.looked.wait()
    await owner.ingest(KEY)
    await owner.journal.checkpoint()
    await owner.ingest(OTHER)
    await owner.journal.checkpoint()
    assert KEY not in owner.market.seen
    index.answer.set()
    await late
    assert owner.volume == 10.0


async def test_filter_is_filled_from_index_and_spares_looks(database: Database, store: MarketStore, bus: Bus) -> None:
    first = EventOwner(store, bus, 1)
    await first.journal.recover()
    for number in range(20):
        await first.ingest(short_event_key("/old", str(number)))
    await first.journal.checkpoint()
    await journal_expired(database)

    index = SlowIndex(database)
    index.answer.set()
    second = EventOwner(index, bus, 2)
    await second.journal.recover()
    running = asyncio.create_task(second.journal.run(60.0, 60.0))
    await until(lambda: second.market.processed.is_complete)
    for number in range(20):
        await second.ingest(short_event_key("/new", str(number)))
    assert index.looks == 0
    for number in range(20):
        await second.ingest(short_event_key("/old", str(number)))
    assert index.looks == 20
    assert second.volume == 40 * 5.0
    running.cancel()


async def test_events_of_release_0_2_count_once(database: Database, store: MarketStore, bus: Bus) -> None:
    """It had no index: the ticks still in its journal enter the index of its successor."""
    old = EventOwner(store, bus, 1)
    await old.journal.recover()
    for number in range(3):
        await old.ingest(short_event_key("/old", str(number)))
    await old.journal.checkpoint()
    await database["market_events"].delete_many({})
    await database["market_ticks"].update_many({}, {"$unset": {"term": 1}})
    new = EventOwner(store, bus, 2)
    await new.journal.recover()
    await new.journal.checkpoint()
    await journal_expired(database)
    for number in range(3):
        await new.ingest(short_event_key("/old", str(number)))
    assert new.volume == 15.0
