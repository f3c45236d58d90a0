"""CSV rows as ticks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_feed.candles import CandleBook
from market_feed.quotes import Tick
from market_feed.sources.csv_rows import candle_ms, read_header, read_row, read_time_ms
from shared.commands.market import Interval
from shared.errors import Malformed
from shared.times import MILLISECONDS_PER_DAY

NOW_MS = 1_761_048_000_000
HOUR_MS = 3_600_000


def rows(header: str, row: str, symbol: str | None = "X", duration_ms: int = HOUR_MS) -> list[Tick]:
    layout = read_header(header.split(","), needs_symbol=symbol is None)
    return read_row(layout, row.split(","), symbol, duration_ms, NOW_MS)


def test_row_with_price_is_one_tick() -> None:
    header = "Timestamp,Symbol,Price,Bid,Ask,Volume"
    row = "2025-10-21T11:00:00Z,EUR/USD,1.0875,1.0874,1.0876,3"
    assert rows(header, row, None) == [Tick("EUR/USD", 1.0875, NOW_MS - HOUR_MS, 1.0874, 1.0876, 3.0)]
    assert rows(header, "1761044400,EUR/USD,1.0875,,,", None) == [Tick("EUR/USD", 1.0875, NOW_MS - HOUR_MS)]


def test_symbol_of_file_overrides_column() -> None:
    assert rows("time,symbol,price", "0,A,1", "B")[0].symbol == "B"


def test_candle_row_becomes_four_ticks() -> None:
    ticks = rows(",Open,High,Low,Close,Volume", "2017-04-19 09:00:00,1.0716,1.0722,1.07083,1.07219,1413")
    at_ms = 1_492_592_400_000
    assert [(tick.price, tick.at_ms - at_ms) for tick in ticks] == [
        (1.0716, 0),
        (1.07083, HOUR_MS // 4),
        (1.0722, HOUR_MS // 2),
        (1.07219, HOUR_MS - 1),
    ]
    assert [tick.volume for tick in ticks] == [1413.0, None, None, None]


def test_falling_candle_reaches_high_first() -> None:
    assert [tick.price for tick in rows("time,open,high,low,close", "0,5,9,1,2")] == [5, 9, 1, 2]


def test_times() -> None:
    assert read_time_ms("2012-01-31") == 1_327_968_000_000
    assert read_time_ms("2012-01-31T01:00:00+01:00") == 1_327_968_000_000
    assert read_time_ms("1327968000") == read_time_ms("1327968000000") == 1_327_968_000_000


def test_candle_length_is_shortest_step_up_to_a_day() -> None:
    assert candle_ms([0, HOUR_MS, 60 * HOUR_MS]) == HOUR_MS
    assert candle_ms([0, 31 * MILLISECONDS_PER_DAY]) == MILLISECONDS_PER_DAY
    assert candle_ms([]) == MILLISECONDS_PER_DAY


@pytest.mark.parametrize("header", ["", "price", "time,symbol", "time,open,high,low", "x,price"])
def test_incomplete_header_is_malformed(header: str) -> None:
    with pytest.raises(Malformed):
        read_header(header.split(","), needs_symbol=False)


def test_header_needs_symbol_when_file_has_none() -> None:
    with pytest.raises(Malformed):
        read_header(["time", "price"], needs_symbol=True)


@pytest.mark.parametrize(
    "row",
    [
        "0,1,2,3",
        "0,1,2,3,4,5,6",
        "noon,5,9,1,2,0",
        "0,x,9,1,2,0",
        "0,nan,9,1,2,0",
        "0,5,4,1,2,0",
        "0,5,9,3,2,0",
        "0,5,9,-1,2,0",
        "0,5,9,1,2,-7",
        "9999999999,5,9,1,2,0",
    ],
)
def test_bad_row_is_malformed(row: str) -> None:
    with pytest.raises(Malformed):
        rows("time,open,high,low,close,volume", row)


prices = st.lists(st.integers(1, 10_000).map(lambda number: number / 100), min_size=4, max_size=4)


@given(prices, st.sampled_from([60_000, HOUR_MS, MILLISECONDS_PER_DAY]))
def test_ticks_of_candle_row_rebuild_candle(values: list[float], duration_ms: int) -> None:
    low, first, last, high = sorted(values)
    book = CandleBook()
    for seq, tick in enumerate(
        rows("time,open,high,low,close,volume", f"0,{first},{high},{low},{last},7", "X", duration_ms)
    ):
        book.apply(tick, seq + 1)
    interval = {60_000: Interval.MINUTE, HOUR_MS: Interval.HOUR, MILLISECONDS_PER_DAY: Interval.DAY}[duration_ms]
    (candle,) = book.held("X", interval).values()
    assert (candle.open, candle.high, candle.low, candle.close, candle.volume) == (first, high, low, last, 7.0)
