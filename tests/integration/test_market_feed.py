"""market_feed on the real broker and database: ticks in; prices, candles and applied ticks out."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from market_feed.settings import SourceKind
from shared.commands.market import Interval
from shared.errors import ErrorCode, Refusal
from shared.times import now_ms, to_iso
from tests.support.market import MarketClient, market_client
from tests.support.services import market_feed
from tests.support.waiting import until

MINUTE_MS = 60_000
QUIET = {"market_source": (SourceKind.AMQP,)}
Start = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture
async def client(amqp_url: str) -> AsyncIterator[MarketClient]:
    async with market_client(amqp_url) as client:
        yield client


@pytest.fixture
def start(amqp_url: str, mongodb_uri: str, database_name: str) -> Start:
    """Start a market_feed without its own source."""

    def start(**settings: Any) -> AbstractAsyncContextManager[None]:
        return market_feed(amqp_url, mongodb_uri, database_name, **{**QUIET, **settings})

    return start


async def test_tick_of_new_symbol_is_delivered_announced_and_answered(client: MarketClient, start: Start) -> None:
    async with start():
        at = to_iso(now_ms() - 1000)
        tick = {"symbol": "NEW/ONE", "price": 12.5, "bid": 12.4, "ask": 12.6, "volume": 3, "timestamp": at}
        await client.publish(tick)
        await until(lambda: bool(client.of("NEW/ONE")))
        (data,) = client.of("NEW/ONE")
        expected = {**tick, "change": 0.0, "changePercent": 0.0, "volume": 3.0, "seq": data["seq"]}
        assert data == expected
        answer = await client.prices("NEW/ONE", "NO/SUCH")
        assert [price.price for price in answer.prices] == [12.5]
        assert answer.unknown == ("NO/SUCH",)
        assert [symbol.symbol for symbol in await client.symbols()] == ["NEW/ONE"]
        await until(lambda: bool(client.applied_of("NEW/ONE")))
        (applied,) = client.applied_of("NEW/ONE")
        assert (applied.price, applied.seq, to_iso(applied.at_ms)) == (12.5, data["seq"], at)


async def test_every_tick_of_array_is_announced_and_newest_delivered(client: MarketClient, start: Start) -> None:
    async with start():
        prices = [1.0, 9.0, 2.0, 3.0]
        await client.publish([{"symbol": "SPIKE", "price": price} for price in prices])
        await until(lambda: len(client.applied_of("SPIKE")) == len(prices))
        applied = client.applied_of("SPIKE")
        assert [tick.price for tick in applied] == prices
        assert [tick.seq - applied[0].seq for tick in applied] == [0, 1, 2, 3]
        await until(lambda: bool(client.of("SPIKE")))
        assert client.of("SPIKE")[-1]["price"] == 3.0
        assert client.of("SPIKE")[-1]["change"] == 2.0


async def test_duplicate_event_counts_once_over_restart(client: MarketClient, start: Start) -> None:
    for _ in range(2):
        async with start():
            for _ in range(3):
                await client.publish({"symbol": "ONCE", "price": 5, "volume": 2}, event_id="same")
            await client.publish({"symbol": "LAST", "price": 1})
            await until(lambda: bool(client.of("LAST")))
            assert (await client.prices("ONCE")).prices[0].volume == 2.0
            client.frames.clear()


async def test_bad_ticks_are_dead_lettered_and_others_count(client: MarketClient, start: Start) -> None:
    async with start():
        bodies = [b"\xff", b"[]", json.dumps({"specversion": "1.0"}).encode()]
        for body in bodies:
            await client.publish_body(body)
        nan, negative = {"symbol": "MIXED", "price": float("nan")}, {"symbol": "MIXED", "price": -1}
        await client.publish([nan, {"symbol": "MIXED", "price": 7}, negative, {"symbol": "A B", "price": 1}])
        await client.publish({"symbol": "MIXED", "price": 8, "timestamp": now_ms() + 120_000})
        await client.publish({"symbol": "DONE", "price": 1})
        await until(lambda: bool(client.of("DONE")))
        dead_letters: list[tuple[str, bytes]] = []
        async with asyncio.timeout(10):
            while len(dead_letters) < 5:
                dead_letters += await client.dead_letters()
        assert [body for _, body in dead_letters[:3]] == bodies
        assert "data[0].price" in dead_letters[3][0]
        assert "data[2].price" in dead_letters[3][0]
        assert "data[3].symbol" in dead_letters[3][0]
        assert "ahead" in dead_letters[4][0]
        assert [price.price for price in (await client.prices("MIXED", "A B")).prices] == [7.0]


async def test_message_may_hold_several_events(client: MarketClient, start: Start) -> None:
    async with start():
        lines = [
            json.dumps(
                {
                    "specversion": "1.0",
                    "id": f"line-{number}",
                    "source": "/tests",
                    "type": "market.tick",
                    "data": {"symbol": f"LINE{number}", "price": 1 + number},
                }
            )
            for number in range(3)
        ]
        await client.publish_body("\n".join(lines).encode())
        await until(lambda: bool(client.of("LINE2")))
        assert [price.price for price in (await client.prices("LINE0", "LINE1", "LINE2")).prices] == [1.0, 2.0, 3.0]


async def test_simulation_continues_from_last_price(client: MarketClient, start: Start) -> None:
    simulated = {"market_source": (SourceKind.SIM,), "market_symbols": ("EUR/USD", "BTC/USD")}
    async with start(**simulated, market_sim_ticks_per_s=50.0):
        await until(lambda: len(client.of("EUR/USD")) > 20 and len(client.of("BTC/USD")) > 20)
    last = client.of("BTC/USD")[-1]
    seqs = [data["seq"] for data in client.of("BTC/USD")]
    assert seqs == sorted(set(seqs))
    client.frames.clear()
    async with start(**simulated):
        await until(lambda: len(client.of("BTC/USD")) > 2)
    for data in client.of("BTC/USD"):
        assert data["seq"] > last["seq"]
        assert data["price"] == pytest.approx(last["price"], rel=0.001)


async def test_price_reports_stale_once_and_moving_once(client: MarketClient, start: Start) -> None:
    async with start(market_stale_s=0.6):
        await client.publish({"symbol": "STILL", "price": 4})
        await until(lambda: len(client.of("STILL")) == 2)
        assert (await client.prices("STILL")).prices[0].stale is True
        await client.publish({"symbol": "STILL", "price": 5})
        await until(lambda: len(client.of("STILL")) == 3)
        await client.publish({"symbol": "STILL", "price": 6})
        await until(lambda: len(client.of("STILL")) == 5)
    frames = client.of("STILL")
    assert [frame.get("stale") for frame in frames] == [None, True, False, None, True]
    assert [frame["price"] for frame in frames] == [4, 4, 5, 6, 6]
    seqs = [frame["seq"] for frame in frames]
    assert seqs == sorted(set(seqs))


async def test_late_tick_corrects_written_candle(client: MarketClient, start: Start) -> None:
    minute_ms = (now_ms() - 10 * MINUTE_MS) // MINUTE_MS * MINUTE_MS

    def tick(price: float, at_ms: int, volume: float = 1) -> dict[str, Any]:
        return {"symbol": "LATE", "price": price, "volume": volume, "timestamp": at_ms}

    async with start(market_cut_interval_s=0.1):
        await client.publish([tick(5, minute_ms + 1000), tick(6, minute_ms + 2000), tick(7, minute_ms + 3 * MINUTE_MS)])
        await until(lambda: len(client.applied_of("LATE")) == 3)
    async with start(market_cut_interval_s=0.1):
        await client.publish([tick(9, minute_ms + 1500), tick(2, minute_ms + 500), tick(4, minute_ms + 59_999)])
        await client.publish(tick(1, minute_ms + MINUTE_MS))
        await until(lambda: len(client.applied_of("LATE")) == 7)
        first, second, third = await client.candles("LATE", Interval.MINUTE)
        assert (first.open, first.high, first.low, first.close, first.volume) == (2, 9, 2, 4, 5)
        assert (second.open, second.volume, third.open) == (1, 1, 7)
        assert (await client.prices("LATE")).prices[0].price == 7


async def test_candles_are_selected_by_time_and_limit(client: MarketClient, start: Start) -> None:
    first_ms = (now_ms() - 30 * MINUTE_MS) // MINUTE_MS * MINUTE_MS
    async with start(market_cut_interval_s=0.1):
        ticks = [{"symbol": "MANY", "price": 1 + n, "timestamp": first_ms + n * MINUTE_MS} for n in range(20)]
        await client.publish(ticks)
        await client.publish({"symbol": "MANY", "price": 99})
        await until(lambda: len(client.applied_of("MANY")) == 21)

        async def opens(**more: Any) -> list[float]:
            return [candle.open for candle in await client.candles("MANY", Interval.MINUTE, **more)]

        assert await opens() == [*range(1, 21), 99]
        assert await opens(limit=3) == [19, 20, 99]
        assert await opens(from_ms=first_ms, limit=3) == [1, 2, 3]
        assert await opens(from_ms=first_ms + MINUTE_MS, to_ms=first_ms + 3 * MINUTE_MS) == [2, 3, 4]
        assert await opens(to_ms=first_ms + 3 * MINUTE_MS, limit=2) == [3, 4]
        assert await opens(to_ms=first_ms - 1) == []
        candles = await client.candles("MANY", Interval.MINUTE)
        assert [candle.closed for candle in candles] == [True] * 20 + [False]
        assert candles[0].open_time == to_iso(first_ms)
        for interval in (Interval.FIVE_MINUTES, Interval.HOUR, Interval.DAY):
            found = await client.candles("MANY", interval)
            assert max(candle.high for candle in found) == 99
        with pytest.raises(Refusal) as refused:
            await client.candles("NO/SUCH", Interval.MINUTE)
        assert refused.value.code == ErrorCode.NOT_FOUND
