"""The checks of incoming ticks: good ones count, bad ones are named, and nothing crashes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_feed.quotes import Tick
from market_feed.sources.parsing import TickEvent, read_event, read_fields, to_tick
from shared.errors import Malformed, Refusal
from shared.protocol.validation import is_symbol

NOW_MS = 1_761_048_000_000
GOOD = {"symbol": "EUR/USD", "price": 1.0875}


def body_of(data: Any, **more: Any) -> bytes:
    """Return an event as Python's own json writes it, NaN included."""
    event = {"specversion": "1.0", "id": "evt_1", "source": "/s", "type": "market.tick", "data": data}
    return json.dumps({**event, **more}).encode()


def read(data: Any, **more: Any) -> TickEvent:
    return read_event(body_of(data, **more), NOW_MS)


def test_single_tick_with_all_fields() -> None:
    data = {**GOOD, "bid": 1.0874, "ask": 1.0876, "volume": 3, "timestamp": "2025-10-21T11:59:59.500Z"}
    event = read(data)
    assert event.ticks == [Tick("EUR/USD", 1.0875, NOW_MS - 500, 1.0874, 1.0876, 3.0)]
    assert (event.source, event.id, event.problems) == ("/s", "evt_1", [])


def test_time_is_from_tick_or_event_or_now() -> None:
    assert read({**GOOD, "timestamp": NOW_MS - 7}).ticks[0].at_ms == NOW_MS - 7
    assert read(GOOD, time="2025-10-21t11:59:58z").ticks[0].at_ms == NOW_MS - 2000
    assert read(GOOD).ticks[0].at_ms == NOW_MS


def test_array_counts_each_tick() -> None:
    assert [tick.price for tick in read([{**GOOD, "price": price} for price in (1, 2.5)]).ticks] == [1.0, 2.5]
    assert read([]).ticks == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"price": float("nan")}, "price"),
        ({"price": float("inf")}, "price"),
        ({"price": 0}, "price"),
        ({"price": -1.5}, "price"),
        ({"price": 1e12}, "price"),
        ({"price": "1.08"}, "price"),
        ({"price": True}, "price"),
        ({"price": None}, "price"),
        ({"bid": -1}, "bid"),
        ({"ask": float("nan")}, "ask"),
        ({"volume": -0.5}, "volume"),
        ({"symbol": "EUR USD"}, "symbol"),
        ({"symbol": "A,B"}, "symbol"),
        ({"symbol": "A\tB"}, "symbol"),
        ({"symbol": ""}, "symbol"),
        ({"symbol": "X" * 33}, "symbol"),
        ({"symbol": 7}, "symbol"),
        ({"timestamp": NOW_MS + 60_001}, "timestamp"),
        ({"timestamp": "2025-10-21T12:01:01Z"}, "timestamp"),
        ({"timestamp": "2025-10-21T12:00:00"}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
    ],
)
def test_bad_tick_is_named_and_others_count(wrong: dict[str, Any], named: str) -> None:
    event = read([GOOD, {**GOOD, **wrong}, GOOD])
    assert len(event.ticks) == 2
    (problem,) = event.problems
    assert problem.startswith(f"data[1].{named}")
    alone = read({**GOOD, **wrong})
    assert (alone.ticks, len(alone.problems)) == ([], 1)
    assert alone.problems[0].startswith(f"data.{named}")


def test_non_object_element_is_named() -> None:
    event = read([GOOD, 7, "x", None, [GOOD]])
    assert len(event.ticks) == 1
    assert [problem.partition(":")[0] for problem in event.problems] == ["data[1]", "data[2]", "data[3]", "data[4]"]


def test_missing_field_is_named() -> None:
    assert read({"symbol": "X"}).problems == ["data.price: is missing"]


def test_time_slightly_ahead_counts_as_now() -> None:
    assert read({**GOOD, "timestamp": NOW_MS + 60_000}).ticks[0].at_ms == NOW_MS


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'"x"',
        b"\xff\xfe",
        b"[" * 100_000,
        body_of(GOOD, specversion="0.3"),
        body_of(GOOD, id=""),
        body_of(GOOD, source=5),
        body_of(GOOD, type="post.created"),
        body_of(GOOD, time="soon"),
        body_of("x"),
        body_of(None),
    ],
)
def test_body_without_tick_event_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        read_event(body, NOW_MS)


def test_unknown_fields_are_ignored() -> None:
    assert len(read({**GOOD, "venue": "X"}, datacontenttype="application/json").ticks) == 1


def test_symbol_shapes() -> None:
    assert all(
        map(
            is_symbol,
            (
                "EUR/USD",
                "BTC-PERP",
                "^GSPC",
                "ES=F",
                "BRK.B",
                "US500",
                "binance:BTCUSDT",
                "a",
                "M&M.NS",
                "ES1!",
                "#GOLD",
                "$SPX",
                ".DJI",
                "-X",
            ),
        )
    )
    assert not any(map(is_symbol, ("", " A", "A ", "A B", "A,B", "A\n", "ü", "X" * 33, "A%B", "A*")))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.dictionaries(
    st.sampled_from(["symbol", "price", "bid", "ask", "volume", "timestamp"]), json_values, max_size=6
)


@given(st.lists(fields.map(lambda wrong: {**GOOD, **wrong}), max_size=5))
def test_each_element_is_a_tick_or_a_problem(data: list[dict[str, Any]]) -> None:
    event = read(data)
    assert len(event.ticks) + len(event.problems) == len(data)
    for tick in event.ticks:
        assert 0 < tick.price < 1e12
        assert 0 <= tick.at_ms <= NOW_MS
        assert is_symbol(tick.symbol)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_event_or_malformed(body: bytes) -> None:
    try:
        read_event(body, NOW_MS)
    except Malformed as error:
        assert str(error)


def test_fields_of_all_sources_share_checks() -> None:
    assert to_tick(read_fields(GOOD), NOW_MS, NOW_MS) == Tick("EUR/USD", 1.0875, NOW_MS)
    with pytest.raises(Refusal):
        read_fields({"symbol": "X", "price": float("nan")})


def test_old_event_time_does_not_age_tick() -> None:
    assert read(GOOD, time="2024-10-21T11:59:58Z").ticks[0].at_ms == NOW_MS
    assert read({**GOOD, "timestamp": NOW_MS - 86_400_000}, time="2024-10-21T11:59:58Z").ticks[0].at_ms == (
        NOW_MS - 86_400_000
    )
