"""Composition root of market_feed: `python -m market_feed`."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

from market_feed.announcer import Announcer
from market_feed.feed import Feed
from market_feed.journal import Journal
from market_feed.market import Market
from market_feed.ownership import Ownership
from market_feed.price_publisher import PricePublisher
from market_feed.queries import MarketQueryHandler
from market_feed.settings import MarketSettings, SourceKind
from market_feed.sources.amqp import TickEvents
from market_feed.sources.replay import CsvReplay
from market_feed.sources.sim import Simulation
from market_feed.sources.tick_sink import TickSink
from market_feed.sources.websocket import WebSocketFeed
from market_feed.staleness import Staleness
from market_feed.store import INDEXES, MarketStore
from shared.bus.bus import Bus
from shared.bus.events import split_events
from shared.bus.liveness_queue import LivenessQueue
from shared.bus.query_server import QueryServer
from shared.bus.topology import MARKET_QUERY, MARKET_TICKS
from shared.commands.market import AnyMarketRequest
from shared.errors import Unavailable
from shared.mongo import Mongo
from shared.process import lifecycle
from shared.process.admin import Admin, not_started_yet
from shared.schema_store import Schema
from shared.telemetry import logs
from shared.times import now_ms

log = logs.get(__name__)

SCHEMA = Schema("market_feed", 1)
RECOVER_RETRY_S = 0.5
# Ticks that arrive during a journal write are applied and delivered; the next write contains them all.
TICK_BATCHES_AT_ONCE = 8
TICK_MESSAGES_AT_ONCE = 1000


async def serve(settings: MarketSettings, node_id: str, stop: asyncio.Event) -> None:
    """Stand by until `stop` is set, and serve while this process owns the symbols."""
    admin = Admin(settings)
    admin.checks["start"] = not_started_yet
    async with AsyncExitStack() as stack:
        mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=settings.request_timeout_s)
        stack.callback(mongo.close)
        admin.checks["database"] = mongo.readiness
        await stack.enter_async_context(admin.serving(settings.admin_host, settings.admin_port))
        await lifecycle.run_until(stop, mongo.wait_ready(INDEXES, SCHEMA.claim))
        bus = await stack.enter_async_context(
            Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s)
        )
        admin.checks["broker"] = bus.readiness
        store = MarketStore(mongo.database, settings.market_tick_ttl_s, now_ms)
        liveness = LivenessQueue(settings.amqp_url, node_id)
        ownership = Ownership(store, liveness, node_id, settings.market_lease_s)
        admin.checks["market"] = ownership.readiness
        del admin.checks["start"]
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(liveness.run(), name="liveness")
            with lifecycle.stopping_on_failure(stop):
                await ownership.run(stop, _TermService(settings, bus, store, ownership, stop).serve)
            liveness.leave()
            keeping.cancel()


class _Recovered(NamedTuple):
    """The state of one term of ownership."""

    market: Market
    journal: Journal
    announcer: Announcer


class _TermService:
    """Runs the service once for each term of ownership."""

    def __init__(
        self, settings: MarketSettings, bus: Bus, store: MarketStore, ownership: Ownership, stop: asyncio.Event
    ) -> None:
        self._stop = stop
        self._settings = settings
        self._bus = bus
        self._store = store
        self._ownership = ownership

    async def serve(self, term: int, ended: asyncio.Event) -> None:
        """Recover, run the service until `ended` is set, and write what is pending."""
        await lifecycle.run_until(ended, self._bus.wait_connected())
        recovered = await self._recover(term, ended)
        if recovered is not None:
            await self._run(recovered, ended)

    async def _recover(self, term: int, ended: asyncio.Event) -> _Recovered | None:
        while not ended.is_set():
            market, announcer = Market(term), Announcer(self._bus)
            journal = Journal(market, self._store, announcer, self._ownership.owns, ended, now_ms)
            try:
                await journal.recover()
            except Unavailable as error:
                log.warning("recovery_delayed", reason=str(error), retry_in_s=RECOVER_RETRY_S)
                await asyncio.sleep(RECOVER_RETRY_S)
            else:
                return _Recovered(market, journal, announcer)
        return None

    async def _run(self, recovered: _Recovered, ended: asyncio.Event) -> None:
        settings, bus = self._settings, self._bus
        market, journal, announcer = recovered
        prices = PricePublisher(bus, market.quotes)
        staleness = Staleness(market, settings.market_stale_s, time.monotonic)
        feed = Feed(market, journal, announcer, prices, staleness, self._ownership.owns, now_ms)
        ticks = await bus.consume(
            MARKET_TICKS,
            TickEvents(feed, settings.market_stale_s, now_ms).handle,
            prefetch=TICK_MESSAGES_AT_ONCE,
            concurrency=TICK_BATCHES_AT_ONCE,
            split=split_events,
        )
        handler = MarketQueryHandler(market, journal, self._store, now_ms)
        server = QueryServer(bus, AnyMarketRequest, handler.answer)
        queries = await bus.consume(MARKET_QUERY, server.handle, concurrency=8)
        self._ownership.is_serving = True
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = journal.run(settings.market_commit_interval_s, settings.market_cut_interval_s)
                running = [tasks.create_task(writing, name="journal"), tasks.create_task(feed.sweep(), name="sweep")]
                running += [tasks.create_task(source.run(), name="source") for source in self._sources(feed)]
                with lifecycle.stopping_on_failure(self._stop):
                    await ended.wait()
                for task in running:
                    task.cancel()
        finally:
            self._ownership.is_serving = False
            await bus.stop(ticks)
            await bus.stop(queries)
        prices.flush()
        await self._write_rest(journal)

    async def _write_rest(self, journal: Journal) -> None:
        try:
            await journal.checkpoint()
        except Unavailable as error:
            log.warning("state_not_written", reason=str(error))

    def _sources(self, sink: TickSink) -> Iterator[Simulation | WebSocketFeed | CsvReplay]:
        settings, chosen = self._settings, self._settings.market_source
        stale_s = settings.market_stale_s
        if SourceKind.SIM in chosen:
            seed, rate_per_s = settings.market_sim_seed, settings.market_sim_ticks_per_s
            yield Simulation(sink, stale_s, settings.market_symbols, seed, rate_per_s, now_ms)
        if SourceKind.WEBSOCKET in chosen:
            for spec in settings.feeds():
                yield WebSocketFeed(sink, spec, now_ms)
        if SourceKind.REPLAY in chosen:
            for path, symbol in settings.replay_files():
                yield CsvReplay(sink, stale_s, path, symbol, settings.market_replay_speed, now_ms)


if __name__ == "__main__":
    lifecycle.run("market_feed", MarketSettings, serve)
