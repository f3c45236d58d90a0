"""market_feed: `python -m market_feed`. The composition root."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

from market_feed.announcer import Announcer
from market_feed.feed import Feed
from market_feed.journal import Journal
from market_feed.market import Market
from market_feed.ownership import Ownership
from market_feed.queries import MarketQueryHandler
from market_feed.settings import MarketSettings, SourceKind
from market_feed.sources.amqp import TickEvents
from market_feed.sources.replay import CsvReplay
from market_feed.sources.sim import Simulation
from market_feed.sources.websocket import WebSocketFeed
from market_feed.store import INDEXES, LeaseLost, MarketStore
from shared.bus.bus import Bus
from shared.bus.events import split_events
from shared.bus.query_server import QueryServer
from shared.bus.topology import MARKET_QUERY, MARKET_TICKS
from shared.commands.market import MarketQueries
from shared.errors import Unavailable
from shared.mongo import Mongo
from shared.process import lifecycle
from shared.process.admin import Admin
from shared.telemetry import logs

log = logs.get(__name__)

RECOVER_PAUSE_S = 0.5
# While one journal write is under way, what arrives is counted and delivered, and waits for the next together.
TICK_BATCHES_AT_ONCE = 8
TICK_MESSAGES_AT_ONCE = 1000


async def serve(settings: MarketSettings, node_id: str, stop: asyncio.Event) -> None:
    """Run until `stop` is set: stand by, and serve while this process owns the symbols."""
    admin = Admin()
    mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=settings.request_timeout_s)
    async with AsyncExitStack() as stack:
        stack.callback(mongo.close)
        await stack.enter_async_context(admin.serving(settings.admin_host, settings.admin_port))
        admin.checks["database"] = mongo.readiness
        bus = await stack.enter_async_context(
            Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s)
        )
        admin.checks["broker"] = bus.readiness
        store = MarketStore(mongo.database, settings.market_tick_ttl_s)
        ownership = Ownership(store, node_id, settings.market_lease_s)
        admin.checks["market"] = ownership.readiness
        await lifecycle.until(stop, mongo.wait_ready(INDEXES))
        await ownership.run(stop, _Term(settings, bus, store, ownership).serve)


class _Term:
    """What runs while this process owns the symbols."""

    def __init__(self, settings: MarketSettings, bus: Bus, store: MarketStore, ownership: Ownership) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        self._ownership = ownership

    async def serve(self, term: int, ended: asyncio.Event) -> None:
        """Recover, run everything until `ended` is set, write what is pending."""
        await lifecycle.until(ended, self._bus.wait_connected())
        feed = await self._recover(term, ended)
        if feed is None:
            return
        try:
            await self._run(feed, ended)
        except* LeaseLost:
            log.warning("superseded", term=term)

    async def _recover(self, term: int, ended: asyncio.Event) -> Feed | None:
        while not ended.is_set():
            market = Market(term)
            announcer = Announcer(self._bus)
            keeper = Journal(market, self._store, announcer, self._ownership.owns)
            try:
                await keeper.recover()
            except Unavailable as error:
                log.warning("recovery_waits", reason=str(error))
                await asyncio.sleep(RECOVER_PAUSE_S)
            else:
                return Feed(self._bus, market, keeper, announcer, self._ownership.owns, self._settings.market_stale_s)
        return None

    async def _run(self, feed: Feed, ended: asyncio.Event) -> None:
        settings, bus = self._settings, self._bus
        ticks = await bus.consume(
            MARKET_TICKS,
            TickEvents(feed, settings.market_stale_s).handle,
            prefetch=TICK_MESSAGES_AT_ONCE,
            concurrency=TICK_BATCHES_AT_ONCE,
            split=split_events,
        )
        answer = MarketQueryHandler(feed, self._store).answer
        queries = await bus.consume(MARKET_QUERY, QueryServer(bus, MarketQueries, answer).handle, concurrency=8)
        self._ownership.is_serving = True
        try:
            async with asyncio.TaskGroup() as tasks:
                keeping = feed.keeper.run(settings.market_commit_interval_s, settings.market_cut_interval_s)
                running = [tasks.create_task(keeping, name="keep"), tasks.create_task(feed.sweep(), name="sweep")]
                running += [tasks.create_task(source.run(), name="source") for source in self._sources(feed)]
                await ended.wait()
                for task in running:
                    task.cancel()
        finally:
            self._ownership.is_serving = False
            await bus.stop(ticks)
            await bus.stop(queries)
        feed.deliver_outgoing()
        await self._finish(feed)

    async def _finish(self, feed: Feed) -> None:
        try:
            await feed.keeper.cut()
        except Unavailable as error:
            log.warning("state_not_kept", reason=str(error))

    def _sources(self, feed: Feed) -> Iterator[Simulation | WebSocketFeed | CsvReplay]:
        settings, chosen = self._settings, self._settings.market_source
        stale_s = settings.market_stale_s
        if SourceKind.SIM in chosen:
            seed, rate_per_s = settings.market_sim_seed, settings.market_sim_ticks_per_s
            yield Simulation(feed, stale_s, settings.market_symbols, seed, rate_per_s)
        if SourceKind.WEBSOCKET in chosen:
            for spec in settings.feeds():
                yield WebSocketFeed(feed, spec)
        if SourceKind.REPLAY in chosen:
            for path, symbol in settings.replay_files():
                yield CsvReplay(feed, stale_s, path, symbol, settings.market_replay_speed)


if __name__ == "__main__":
    lifecycle.run("market_feed", MarketSettings, serve)
