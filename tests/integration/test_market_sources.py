"""Upstream WebSocket feeds in their published formats, and CSV files replayed, on the real broker and database."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import WSMsgType, web

from market_feed.settings import SourceKind
from shared.commands.market import CandleData, Interval
from shared.times import from_iso, now_ms, to_iso
from tests.support.market import MarketClient, market_client
from tests.support.real_candles import real_candles
from tests.support.services import market_feed
from tests.support.waiting import until

Start = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture
async def client(amqp_url: str) -> AsyncIterator[MarketClient]:
    async with market_client(amqp_url) as client:
        yield client


@pytest.fixture
def start(amqp_url: str, mongodb_uri: str, database_name: str) -> Start:
    def start(source: SourceKind, **settings: Any) -> AbstractAsyncContextManager[None]:
        return market_feed(amqp_url, mongodb_uri, database_name, market_source=(source,), **settings)

    return start


class Upstream:
    """A server that speaks the published formats of two exchanges; the test controls its messages."""

    def __init__(self) -> None:
        self.subscriptions: list[Any] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        async for message in socket:
            assert message.type is WSMsgType.TEXT
            frame = json.loads(message.data)
            self.subscriptions.append(frame)
            if "method" in frame:  # as Binance answers
                await socket.send_json({"result": None, "id": frame["id"]})
            else:  # as Coinbase answers
                channels = [{"name": name, "product_ids": frame["product_ids"]} for name in frame["channels"]]
                await socket.send_json({"type": "subscriptions", "channels": channels})
        return socket

    async def send(self, frame: Any) -> None:
        """Send to the newest connection."""
        await self.sockets[-1].send_str(frame if isinstance(frame, str) else json.dumps(frame))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    app = web.Application()
    app.router.add_get("/feed", upstream.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.url = f"ws://127.0.0.1:{runner.addresses[0][1]}/feed"
    yield upstream
    await runner.cleanup()


BINANCE = """
[[feed]]
name = "binance"
url = "{url}"
subscribe = [{{ method = "SUBSCRIBE", params = ["btcusdt@trade"], id = 1 }}]
match = {{ e = "trade" }}
timestamp_unit = "ms"
symbols = {{ BTCUSDT = "BTC/USD" }}
{more}
[feed.fields]
symbol = "s"
price = "p"
volume = "q"
timestamp = "T"
id = "t"
"""
COINBASE = """
[[feed]]
name = "coinbase"
url = "{url}"
subscribe = [{{ type = "subscribe", product_ids = ["ETH-USD"], channels = ["ticker"] }}]
match = {{ type = "ticker" }}
symbols = {{ "ETH-USD" = "ETH/USD" }}
{more}
[feed.fields]
symbol = "product_id"
price = "price"
bid = "best_bid"
ask = "best_ask"
volume = "last_size"
timestamp = "time"
id = "trade_id"
"""


def feed_file(tmp_path: Path, template: str, url: str, more: str = "") -> str:
    path = tmp_path / "feeds.toml"
    path.write_text(template.format(url=url, more=more), encoding="utf-8")
    return str(path)


def trade(number: int, price: str, quantity: str = "0.5") -> dict[str, Any]:
    """Return a trade as Binance publishes it."""
    at_ms = now_ms()
    return {
        "e": "trade",
        "E": at_ms,
        "s": "BTCUSDT",
        "t": number,
        "p": price,
        "q": quantity,
        "T": at_ms,
        "m": True,
        "M": True,
    }


def ticker(number: int, price: str) -> dict[str, Any]:
    """Return a ticker as Coinbase publishes it."""
    return {
        "type": "ticker",
        "sequence": 37475248783 + number,
        "product_id": "ETH-USD",
        "price": price,
        "open_24h": "1310.79",
        "volume_24h": "245532.79269678",
        "best_bid": "1285.04",
        "best_bid_size": "0.46688654",
        "best_ask": "1285.27",
        "best_ask_size": "1.5663704",
        "side": "buy",
        "time": to_iso(now_ms()).replace("Z", "123Z"),
        "trade_id": number,
        "last_size": "11.4396987",
    }


async def test_binance_feed_survives_disconnects_garbage_and_duplicates(
    client: MarketClient, start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    async with start(SourceKind.WEBSOCKET, market_websocket_file=feed_file(tmp_path, BINANCE, upstream.url)):
        subscribe = {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1}
        await until(lambda: upstream.subscriptions == [subscribe])
        await upstream.send(trade(1, "64210.11000000"))
        await until(lambda: len(client.applied_of("BTC/USD")) == 1)
        await upstream.send("<html>not json</html>")
        await upstream.send([1, None, {"e": "trade"}, trade(2, "NaN"), trade(3, "-5")])
        await upstream.send({"e": "depthUpdate", "s": "BTCUSDT"})
        await upstream.send(trade(4, "64211.5"))
        await until(lambda: len(client.applied_of("BTC/USD")) == 2)
        await upstream.sockets[-1].close()
        await until(lambda: upstream.subscriptions == [subscribe] * 2)
        await upstream.send(trade(4, "64211.5"))
        await upstream.send(trade(5, "64212"))
        await until(lambda: len(client.applied_of("BTC/USD")) == 3)
        assert [tick.price for tick in client.applied_of("BTC/USD")] == [64210.11, 64211.5, 64212.0]
        assert (await client.prices("BTC/USD")).prices[0].volume == 1.5


async def test_silent_coinbase_feed_goes_stale_and_reconnects(
    client: MarketClient, start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    limits = "silent_s = 2\nstale_s = 1"
    async with start(SourceKind.WEBSOCKET, market_websocket_file=feed_file(tmp_path, COINBASE, upstream.url, limits)):
        await until(lambda: len(upstream.subscriptions) == 1)
        await upstream.send(ticker(1, "1285.22"))
        await until(lambda: len(client.of("ETH/USD")) == 2)
        first, stale = client.of("ETH/USD")
        assert (first["price"], first["bid"], first["ask"], first["volume"]) == (1285.22, 1285.04, 1285.27, 11.4396987)
        assert ("stale" in first, stale["stale"]) == (False, True)
        await until(lambda: len(upstream.subscriptions) == 2)
        await upstream.send(ticker(2, "1286"))
        await until(lambda: len(client.of("ETH/USD")) >= 3)
        assert client.of("ETH/USD")[2]["stale"] is False


async def test_unreachable_upstream_is_retried(
    client: MarketClient, start: Start, upstream: Upstream, tmp_path: Path
) -> None:
    accepting = asyncio.Event()
    handle = upstream.handle

    async def refuse_first(request: web.Request) -> web.WebSocketResponse:
        if not accepting.is_set():
            accepting.set()
            raise web.HTTPServiceUnavailable
        return await handle(request)

    app = web.Application()
    app.router.add_get("/late", refuse_first)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"ws://127.0.0.1:{runner.addresses[0][1]}/late"
    async with start(SourceKind.WEBSOCKET, market_websocket_file=feed_file(tmp_path, BINANCE, url)):
        await until(lambda: len(upstream.subscriptions) == 1)
        await upstream.send(trade(1, "64210"))
        await until(lambda: bool(client.of("BTC/USD")))
    await runner.cleanup()


# Replay -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "symbol", "interval"),
    [("EURUSD.csv", "EUR/USD", Interval.HOUR), ("BTCUSD.csv", "BTC/USD", Interval.DAY)],
)
async def test_replayed_candles_read_back_equal(
    client: MarketClient, start: Start, name: str, symbol: str, interval: Interval
) -> None:
    path, rows = real_candles(name)
    replay = {"market_replay_files": (f"{symbol}={path}",)}
    for _ in range(2):  # the second start finds the file finished
        async with start(SourceKind.REPLAY, **replay):
            await until(lambda: len(client.applied_of(symbol)) == 4 * len(rows), timeout_s=60)
            found = [candle async for candle in all_candles(client, symbol, interval)]
            assert len(found) == len(rows)
            for row, candle in zip(rows, found, strict=True):
                day, _, hour = row[""].partition(" ")
                assert candle.open_time == f"{day}T{hour or '00:00:00'}.000Z"
                wanted = tuple(float(row[column]) for column in ("Open", "High", "Low", "Close"))
                assert (candle.open, candle.high, candle.low, candle.close) == wanted
                assert candle.volume == pytest.approx(float(row["Volume"]), rel=1e-12)
                assert candle.closed
            assert (await client.prices(symbol)).prices[0].price == float(rows[-1]["Close"])


async def all_candles(client: MarketClient, symbol: str, interval: Interval) -> AsyncIterator[CandleData]:
    """Return every candle of a series, page by page."""
    from_ms = 0
    while page := await client.candles(symbol, interval, from_ms=from_ms, limit=700):
        for candle in page:
            yield candle
        from_ms = from_iso(page[-1].open_time) + 1


async def test_malformed_rows_are_logged_by_line_and_others_count(
    client: MarketClient, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "ticks.csv"
    path.write_text(
        "time,symbol,price,volume\n"
        "2024-01-01T00:00:00Z,CSV,1.5,1\n"
        "2024-01-01T00:00:01Z,CSV,-1,1\n"
        '2024-01-01T00:00:02Z,"CSV",2.5,1\n'
        '"broken\n'
        "\n"
        "noon,CSV,1,1\n"
        "2024-01-01T00:00:03Z,CSV,3.5,1\n",
        encoding="utf-8",
    )
    with structlog.testing.capture_logs() as logged:
        async with start(SourceKind.REPLAY, market_replay_files=(str(path),)):
            await until(lambda: len(client.applied_of("CSV")) == 3)
            assert [tick.price for tick in client.applied_of("CSV")] == [1.5, 2.5, 3.5]
            assert (await client.prices("CSV")).prices[0].volume == 3.0
    skipped = [entry for entry in logged if entry["event"] == "csv_row_skipped"]
    assert [(entry["line"], entry["file"]) for entry in skipped] == [(3, path.name), (5, path.name), (7, path.name)]


async def test_paced_replay_keeps_intervals(client: MarketClient, start: Start, tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    rows = "".join(f"{1_700_000_000 + 10 * n},{1 + n}\n" for n in range(6))
    path.write_text(f"time,price\n{rows}", encoding="utf-8")
    received_s: list[float] = []
    loop = asyncio.get_running_loop()
    async with start(SourceKind.REPLAY, market_replay_files=(f"PACED={path}",), market_replay_speed=50.0):
        for count in range(1, 7):
            await until(client.has_received(count))
            received_s.append(loop.time())
    assert 0.7 < received_s[-1] - received_s[0] < 3.0
    assert [data["price"] for data in client.of("PACED")] == [1, 2, 3, 4, 5, 6]
