"""Rows of a CSV file as ticks: one tick per row, or the four of a candle. Pure.

The header names the columns, in any order and case: a time (`time`, `timestamp`, `date`, `datetime`, or a column
without a name), then `price`, or `open`, `high`, `low` and `close`; `symbol`, `bid`, `ask` and `volume` are optional.
Times are ISO 8601 (UTC without an offset), or seconds or milliseconds since 1970.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC
from itertools import pairwise

import msgspec

from market_feed.quotes import Tick
from market_feed.sources.parsing import TickFields, read_fields, to_tick
from shared.errors import Malformed, Refusal
from shared.times import MILLISECONDS_PER_DAY, from_iso

TIME_NAMES = ("time", "timestamp", "date", "datetime", "")
CANDLE_NAMES = ("open", "high", "low", "close")
MILLISECONDS_FROM = 10**11  # larger numbers are milliseconds: as seconds, this is the year 5138
CANDLE_MS_MIN = 4


class Layout(msgspec.Struct, frozen=True):
    """The columns of a file."""

    time: int
    prices: tuple[int, ...]  # of price; or of open, high, low and close
    width: int
    symbol: int | None = None
    bid: int | None = None
    ask: int | None = None
    volume: int | None = None

    @property
    def has_candles(self) -> bool:
        """Return whether a row is a candle."""
        return len(self.prices) == len(CANDLE_NAMES)


def read_header(row: Sequence[str], *, needs_symbol: bool) -> Layout:
    """Read the header. Raises Malformed."""
    names = [name.strip().lower() for name in row]
    columns = {name: number for number, name in reversed(list(enumerate(names)))}
    time = next((columns[name] for name in TIME_NAMES if name in columns), None)
    if time is None:
        raise Malformed("the header has no time")
    prices: tuple[int, ...]
    if "price" in columns:
        prices = (columns["price"],)
    elif all(name in columns for name in CANDLE_NAMES):
        prices = tuple(columns[name] for name in CANDLE_NAMES)
    else:
        raise Malformed("the header has neither price nor open, high, low and close")
    if needs_symbol and "symbol" not in columns:
        raise Malformed("the header has no symbol, and none is set for the file")
    optional = {name: columns.get(name) for name in ("symbol", "bid", "ask", "volume")}
    return Layout(time, prices, len(names), **optional)


def read_time_ms(text: str) -> int:
    """Return a row's time. Raises Malformed."""
    text = text.strip()
    try:
        if text.isdecimal():
            number = int(text)
            return number if number >= MILLISECONDS_FROM else number * 1000
        return from_iso(text, default_zone=UTC)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{text[:40]!r} is not a time") from error


def candle_ms(times_ms: Iterable[int]) -> int:
    """Return the length of a file's candles: the shortest step between its rows, at most a day."""
    ordered = sorted(set(times_ms))
    steps = [after - before for before, after in pairwise(ordered)]
    return min([MILLISECONDS_PER_DAY, *steps])


def read_row(layout: Layout, row: Sequence[str], symbol: str | None, duration_ms: int, now_ms: int) -> list[Tick]:
    """Return the ticks of a row, whose candle has this duration. Raises Malformed with the reason."""
    if len(row) != layout.width:
        raise Malformed(f"{len(row)} columns, but the header has {layout.width}")
    at_ms = read_time_ms(row[layout.time])
    name = symbol if layout.symbol is None or symbol is not None else row[layout.symbol].strip()
    values = [_number(row[column]) for column in layout.prices]
    volume = _optional(row, layout.volume)
    try:
        if not layout.has_candles:
            fields = _fields(name, values[0], volume, _optional(row, layout.bid), _optional(row, layout.ask))
            return [to_tick(fields, at_ms, now_ms)]
        return [
            to_tick(_fields(name, price, volume if number == 0 else None), tick_at_ms, now_ms)
            for number, (price, tick_at_ms) in enumerate(_path(values, at_ms, max(duration_ms, CANDLE_MS_MIN)))
        ]
    except Refusal as refusal:
        raise Malformed(refusal.message) from refusal


def _path(values: list[float], at_ms: int, duration_ms: int) -> list[tuple[float, int]]:
    """Return four prices that produce exactly this candle: open, low, high, close; high before low if it falls."""
    first, high, low, last = values
    if not low <= min(first, last) <= max(first, last) <= high:
        raise Malformed("open and close do not lie between low and high")
    turns = (low, high) if last >= first else (high, low)
    quarter_ms = duration_ms // 4
    return [
        (first, at_ms),
        (turns[0], at_ms + quarter_ms),
        (turns[1], at_ms + 2 * quarter_ms),
        (last, at_ms + duration_ms - 1),
    ]


def _fields(
    symbol: str | None, price: float, volume: float | None, bid: float | None = None, ask: float | None = None
) -> TickFields:
    return read_fields({"symbol": symbol, "price": price, "volume": volume, "bid": bid, "ask": ask})


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise Malformed(f"{text[:40]!r} is not a number") from error


def _optional(row: Sequence[str], column: int | None) -> float | None:
    return None if column is None or not row[column].strip() else _number(row[column])
