"""market_feed as processes that are killed, and with its broker and database unavailable."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from market_feed.quotes import SEQS_PER_TERM
from market_feed.settings import SourceKind
from shared.commands.market import AppliedTick, Interval
from shared.errors import Unavailable
from shared.times import MILLISECONDS_PER_DAY, now_ms
from tests.support.infrastructure import Infrastructure
from tests.support.market import MarketClient, market_client
from tests.support.service_process import Process, service_processes
from tests.support.services import market_feed
from tests.support.waiting import until


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
        "MARKET_SOURCE": "amqp",
        "MARKET_LEASE_S": "1",
        "MARKET_CUT_INTERVAL_S": "0.2",
    }


async def volume_of(client: MarketClient, symbol: str) -> float | None:
    """Return the symbol's volume of the day, as soon as a process answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                return (await client.prices(symbol)).prices[0].volume
            except (Unavailable, IndexError):
                await asyncio.sleep(0.1)


async def test_ticks_count_once_despite_kills(client: MarketClient, environment: dict[str, str]) -> None:
    events, ticks_each = 1500, 4
    at_ms = now_ms() // MILLISECONDS_PER_DAY * MILLISECONDS_PER_DAY - 3_600_000  # all in one past day

    async def publish() -> None:
        for number in range(events):
            tick = {
                "symbol": f"KILL{number % 5}",
                "price": 1 + number % 7,
                "volume": 1,
                "timestamp": at_ms + number,
            }
            await client.publish([tick] * ticks_each, event_id=f"kill-{number}")

    async with service_processes("market_feed", environment) as (process,):
        publishing = asyncio.create_task(publish())
        for kill in range(1, 5):
            await until(client.has_applied(kill * events * ticks_each // 6), timeout_s=30)
            await process.restart_killed()
        await publishing
        for number in range(5):
            symbol, wanted = f"KILL{number}", events * ticks_each / 5
            async with asyncio.timeout(30):
                while (volume := await volume_of(client, symbol)) != wanted:
                    assert volume is None or volume < wanted
                    await asyncio.sleep(0.1)
            candles = await client.candles(symbol, Interval.DAY)
            assert sum(candle.volume for candle in candles) == wanted
        await until(lambda: {tick.at_ms for tick in client.applied} == set(range(at_ms, at_ms + events)))
        assert not await client.dead_letters()
        assert await process.end(signal.SIGTERM) == 0


async def owns(process: Process) -> bool:
    """Return whether the process owns the symbols now."""
    with suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as http, http.get(f"{process.admin_url}/metrics") as response:
            return "market_owner 1.0" in await response.text()
    return False


async def owner_of(processes: list[Process]) -> Process:
    """Return the one process that owns the symbols, as soon as there is one."""
    async with asyncio.timeout(20):
        while True:
            owners = [process for process in processes if await owns(process)]
            assert len(owners) < 2
            if owners:
                return owners[0]
            await asyncio.sleep(0.05)


async def test_stand_by_takes_symbols_over(client: MarketClient, environment: dict[str, str]) -> None:
    simulating = {**environment, "MARKET_SOURCE": "sim", "MARKET_SYMBOLS": "EUR/USD", "MARKET_SIM_TICKS_PER_S": "20"}
    async with service_processes("market_feed", simulating, simulating) as processes:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            owner = await owner_of(processes)
            await until(client.has_received(len(client.frames) + 20), timeout_s=20)
            await owner.end(number)
            (other,) = (process for process in processes if process is not owner)
            assert await owner_of([other]) is other
            await owner.start()
            assert not await owns(owner)
            assert (await client.prices("EUR/USD")).prices
    seqs = [frame["seq"] for frame in client.of("EUR/USD")]
    assert seqs == sorted(seqs)
    assert len({seq // SEQS_PER_TERM for seq in seqs}) == 4


def all_seqs_between(ticks: list[AppliedTick]) -> bool:
    """Return whether the seqs have no gap from the first to the last."""
    seqs = {tick.seq for tick in ticks}
    return max(seqs) - min(seqs) == len(seqs) - 1


@pytest.mark.parametrize("what", ["broker", "database"])
async def test_prices_continue_after_broker_or_database_outage(
    infrastructure: Infrastructure, amqp_url: str, mongodb_uri: str, database_name: str, what: str
) -> None:
    settings: dict[str, Any] = {
        "market_source": (SourceKind.SIM,),
        "market_symbols": ("EUR/USD",),
        "market_lease_s": 2.0,
        "request_timeout_s": 1.0,
    }
    async with market_client(amqp_url) as before, market_feed(amqp_url, mongodb_uri, database_name, **settings):
        await before.publish({"symbol": "KEPT", "price": 3, "volume": 1})
        await until(lambda: bool(before.of("EUR/USD") and before.of("KEPT")))
        server = infrastructure.broker if what == "broker" else infrastructure.database
        server.kill()
        await asyncio.to_thread(server.start)
        count = len(before.of("EUR/USD"))
        await until(lambda: len(before.of("EUR/USD")) > count + 10, timeout_s=30)
        seqs = [frame["seq"] for frame in before.of("EUR/USD")]
        assert seqs == sorted(seqs)
        await until(lambda: all_seqs_between(before.applied_of("EUR/USD")), timeout_s=30)
        async with market_client(amqp_url) as after:
            await after.publish({"symbol": "KEPT", "price": 4, "volume": 1})
            await until(lambda: bool(after.of("KEPT")), timeout_s=30)
            assert await volume_of(after, "KEPT") == 2.0


async def test_market_feed_stops_during_database_outage(
    infrastructure: Infrastructure, client: MarketClient, environment: dict[str, str]
) -> None:
    async with service_processes("market_feed", {**environment, "REQUEST_TIMEOUT_S": "1"}) as (process,):
        await process.ready()
        await client.publish({"symbol": "DONE", "price": 4})
        await until(lambda: bool(client.of("DONE")))
        infrastructure.database.kill()
        await client.publish({"symbol": "WAITS", "price": 4})
        async with asyncio.timeout(15):
            code = await process.end(signal.SIGTERM)
        await asyncio.to_thread(infrastructure.database.start)
        assert code == 0
        await process.start()
        await until(lambda: bool(client.of("WAITS")))


async def test_market_feed_starts_before_its_broker_and_database(
    infrastructure: Infrastructure, environment: dict[str, str]
) -> None:
    infrastructure.database.stop()
    infrastructure.broker.stop()
    async with service_processes("market_feed", environment) as (process,):
        infrastructure.broker.begin()
        infrastructure.database.begin()
        await asyncio.to_thread(infrastructure.broker.wait_until_ready)
        await asyncio.to_thread(infrastructure.database.wait_until_ready)
        await process.ready()
        async with market_client(environment["AMQP_URL"]) as client:
            await client.publish({"symbol": "EARLY", "price": 4})
            await until(lambda: bool(client.of("EARLY")))
        assert await process.end(signal.SIGTERM) == 0
