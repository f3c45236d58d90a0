"""Mappings of upstream feeds: two published formats, invalid files and frames."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_feed.quotes import Tick
from market_feed.sources.mapping import FeedSpec, parse_feeds, read_frame
from shared.errors import Malformed, SettingsInvalid

NOW_MS = 1_761_048_000_000
DOCUMENT = Path(__file__).parents[4] / "docs" / "market-sources.md"


def documented(name: str) -> FeedSpec:
    """Return a mapping from the documentation."""
    for block in re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL):
        for feed in parse_feeds(block):
            if feed.name == name:
                return feed
    raise AssertionError(f"{name} is not documented")


def ticks_of(feed: FeedSpec, frame: Any) -> list[Tick]:
    reading = read_frame(feed, json.dumps(frame), NOW_MS)
    assert not reading.problems
    return [entry.tick for entry in reading.ticks]


BINANCE_TRADE = {
    "e": "trade",
    "E": NOW_MS - 1,
    "s": "BTCUSDT",
    "t": 12345,
    "p": "64210.11000000",
    "q": "0.01500000",
    "T": NOW_MS - 2,
    "m": True,
    "M": True,
}
COINBASE_TICKER = {
    "type": "ticker",
    "sequence": 37475248783,
    "product_id": "ETH-USD",
    "price": "1285.22",
    "open_24h": "1310.79",
    "volume_24h": "245532.79269678",
    "best_bid": "1285.04",
    "best_bid_size": "0.46688654",
    "best_ask": "1285.27",
    "best_ask_size": "1.56637040",
    "side": "buy",
    "time": "2022-10-19T23:28:22.061769Z",
    "trade_id": 370843401,
    "last_size": "11.4396987",
}


def test_binance_trades() -> None:
    feed = documented("binance")
    assert ticks_of(feed, BINANCE_TRADE) == [Tick("BTC/USD", 64210.11, NOW_MS - 2, volume=0.015)]
    assert read_frame(feed, json.dumps(BINANCE_TRADE), NOW_MS).ticks[0].id == "12345"
    assert ticks_of(feed, {"result": None, "id": 1}) == []


def test_binance_combined_stream_of_quotes() -> None:
    feed = documented("binance-quotes")
    quote = {"u": 400900217, "s": "ETHUSDT", "b": "3210.10", "B": "31.21", "a": "3210.30", "A": "40.66"}
    (tick,) = ticks_of(feed, {"stream": "ethusdt@bookTicker", "data": quote})
    assert (tick.symbol, tick.bid, tick.ask, tick.at_ms) == ("ETH/USD", 3210.1, 3210.3, NOW_MS)
    assert tick.price == pytest.approx(3210.2)


def test_coinbase_tickers() -> None:
    feed = documented("coinbase")
    expected = Tick("ETH/USD", 1285.22, 1_666_222_102_062, 1285.04, 1285.27, 11.4396987)
    assert ticks_of(feed, COINBASE_TICKER) == [expected]
    assert ticks_of(feed, {"type": "subscriptions", "channels": []}) == []
    assert ticks_of(feed, {"type": "heartbeat", "sequence": 90, "product_id": "ETH-USD"}) == []


def feed_of(**fields: Any) -> FeedSpec:
    (feed,) = parse_feeds(
        f'[[feed]]\nname = "x"\nurl = "ws://x"\n{fields.pop("more", "")}\n[feed.fields]\n'
        + "\n".join(f'{name} = "{path}"' for name, path in fields.items())
    )
    return feed


def test_frame_may_be_a_list_and_paths_may_enter_lists() -> None:
    feed = feed_of(symbol="0", price="1.last")
    assert ticks_of(feed_of(symbol="s", price="p.1"), [{"s": "A", "p": [1, 2]}, {"s": "B", "p": [3, 4]}]) == [
        Tick("A", 2.0, NOW_MS),
        Tick("B", 4.0, NOW_MS),
    ]
    assert ticks_of(feed, [["A", {"last": 2}]]) == []  # a tick is an object


@pytest.mark.parametrize(("unit", "value"), [("s", 1_761_048_000), ("ms", NOW_MS), ("us", str(NOW_MS * 1000))])
def test_units_of_time(unit: str, value: Any) -> None:
    feed = feed_of(symbol="s", price="p", timestamp="t", more=f'timestamp_unit = "{unit}"')
    assert ticks_of(feed, {"s": "A", "p": 1, "t": value})[0].at_ms == NOW_MS


@pytest.mark.parametrize(
    "element",
    [
        {"s": "A"},
        {"s": "A", "p": "NaN"},
        {"s": "A", "p": "x"},
        {"s": "A", "p": [1]},
        {"s": "A B", "p": 1},
        {"s": {}, "p": 1},
        {"p": 1},
        {"s": "A", "p": 1, "t": "soon"},
        {"s": "A", "p": 1, "t": NOW_MS + 60_001},
        {"s": "A", "p": "1e999"},
    ],
)
def test_bad_tick_is_named_and_others_count(element: dict[str, Any]) -> None:
    feed = feed_of(symbol="s", price="p", timestamp="t", more='timestamp_unit = "ms"')
    good = {"s": "A", "p": 1, "t": NOW_MS}
    reading = read_frame(feed, json.dumps([good, element, good]), NOW_MS)
    assert (len(reading.ticks), len(reading.problems)) == (2, 1)
    assert reading.problems[0].startswith("tick 1: ")


def test_frame_that_is_not_json_is_malformed() -> None:
    with pytest.raises(Malformed):
        read_frame(feed_of(symbol="s", price="p"), "<html>", NOW_MS)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "feed"),
        ("[[feed]", "not TOML"),
        ('[[feed]]\nname = "x"\nurl = "http://x"\n[feed.fields]\nsymbol = "s"\nprice = "p"', "feed[0].url"),
        ('[[feed]]\nname = "x"\nurl = "ws://x"\n[feed.fields]\nprice = "p"', "feed[0].fields.symbol"),
        ('[[feed]]\nname = "x"\nurl = "ws://x"\n[feed.fields]\nsymbol = "s"\nbid = "b"', "x: fields.price"),
        ('[[feed]]\nname = "x"\nurl = "ws://x"\ntypo = 1\n[feed.fields]\nsymbol = "s"\nprice = "p"', "feed[0]"),
        (
            '[[feed]]\nname = "x"\nurl = "ws://x"\nsymbols = {A = "A B"}\n[feed.fields]\nsymbol = "s"\nprice = "p"',
            "x: symbols",
        ),
    ],
)
def test_wrong_file_is_named(text: str, named: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        parse_feeds(text)
    assert caught.value.problems[0].startswith(named)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["s", "p", "t", "b", "x"]), inner, max_size=5)
    ),
)


@given(json_values)
def test_any_frame_is_read_or_malformed(frame: Any) -> None:
    feed = feed_of(symbol="s", price="p", timestamp="t", bid="b.0", volume="x")
    try:
        reading = read_frame(feed, json.dumps(frame), NOW_MS)
    except Malformed:
        return
    assert all(entry.tick.price > 0 for entry in reading.ticks)
