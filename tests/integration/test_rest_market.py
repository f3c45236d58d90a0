"""Prices, symbols and candles over REST: a gateway, market_feed and real candles replayed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from market_feed.settings import SourceKind
from tests.support.live_client import RestClient
from tests.support.real_candles import real_candles
from tests.support.services import chat_service, gateway_alone, market_feed
from tests.support.waiting import until_async


@pytest.fixture
async def rest(
    amqp_url: str, mongodb_uri: str, database_name: str, symbol: str, name: str
) -> AsyncIterator[RestClient]:
    """A market that replays one file; stopping in the middle of a replay would take a minute."""
    path, _ = real_candles(name)
    replay: dict[str, Any] = {
        "market_source": (SourceKind.REPLAY,),
        "market_replay_files": (f"{symbol}={path}",),
    }
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        market_feed(amqp_url, mongodb_uri, database_name, **replay),
        gateway_alone(amqp_url) as url,
    ):
        yield RestClient(url, "reader")


@pytest.fixture
async def quiet_rest(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[RestClient]:
    """A market without ticks: enough for refusals, and quick to stop."""
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        market_feed(amqp_url, mongodb_uri, database_name, market_source=(SourceKind.AMQP,)),
        gateway_alone(amqp_url) as url,
    ):
        yield RestClient(url, "reader")


async def read_back(rest: RestClient, symbol: str, interval: str, count: int) -> list[dict[str, Any]]:
    """Return all candles of a series, page by page, once there are `count`."""

    async def candles() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        start = "1970-01-01T00:00:00.000Z"
        while True:
            path = f"/v1/market/candles?symbol={symbol}&interval={interval}&from={start}&limit=5000"
            status, body = await rest.call("GET", path)
            page = body["data"] if status == 200 else []
            found += page if not found else page[1:]
            if len(page) < 5000:
                return found
            start = page[-1]["openTime"]

    return await until_async(candles, lambda found: len(found) == count, timeout_s=60)


@pytest.mark.parametrize(
    ("name", "symbol", "interval"), [("EURUSD.csv", "EUR/USD", "1h"), ("BTCUSD.csv", "BTC/USD", "1d")]
)
async def test_candles_over_rest_equal_replayed_file(rest: RestClient, name: str, symbol: str, interval: str) -> None:
    _, rows = real_candles(name)
    found = await read_back(rest, symbol, interval, len(rows))
    for row, candle in zip(rows, found, strict=True):
        day, _, hour = row[""].partition(" ")
        assert candle["openTime"] == f"{day}T{hour or '00:00:00'}.000Z"
        shown = tuple(candle[column] for column in ("open", "high", "low", "close"))
        assert shown == tuple(float(row[column]) for column in ("Open", "High", "Low", "Close"))
        assert (candle["symbol"], candle["interval"], candle["closed"]) == (symbol, interval, True)
    [price] = await rest.data("GET", f"/v1/market/prices?symbols={symbol},NOPE,é,M%26M.NS,{'x' * 33}")
    assert (price["symbol"], price["price"]) == (symbol, float(rows[-1]["Close"]))
    assert symbol in {entry["symbol"] for entry in await rest.data("GET", "/v1/market/symbols")}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("interval=1h", "symbol"),
        ("symbol=EUR/USD&interval=2h", "interval"),
        ("symbol=EUR/USD&from=yesterday", "from"),
        (f"symbol=EUR/USD&from={'9' * 400}", "from"),
        ("symbol=EUR/USD&to=%D9%A3", "to"),
        ("symbol=EUR/USD&limit=0", "limit"),
        ("symbol=EUR/USD&limit=null", "limit"),
    ],
)
async def test_wrong_candle_query_names_parameter(quiet_rest: RestClient, query: str, field: str) -> None:
    status, body = await quiet_rest.call("GET", f"/v1/market/candles?{query}")
    assert (status, body["error"]["details"][0]["field"]) == (400, field)


async def test_candles_of_unknown_symbol_are_not_found(quiet_rest: RestClient) -> None:
    status, body = await quiet_rest.call("GET", "/v1/market/candles?symbol=NOPE&interval=1h")
    assert (status, body["error"]["code"]) == (404, "NOT_FOUND")
