"""Candles of 1m, 5m, 1h and 1d, built from ticks in any order. Pure.

The newest candle of each series (a symbol and an interval) stays in memory until a newer one begins; then it is written
and dropped. A late tick for a candle that is not in memory is deferred until the candle has been read from the
database: `missing` names the candles to read, `apply_deferred` applies the ticks.

A candle keeps the times of the ticks that made its open and its close, so that a late tick corrects the right
one, and the seq of its last tick, so that ticks replayed after a crash take no effect twice.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from market_feed.quotes import Tick
from shared.commands.market import Interval

INTERVAL_MS: dict[Interval, int] = {
    Interval.MINUTE: 60_000,
    Interval.FIVE_MINUTES: 300_000,
    Interval.HOUR: 3_600_000,
    Interval.DAY: 86_400_000,
}


class Candle(msgspec.Struct, gc=False):
    """The prices of one interval from `open_ms` on.

    `first_ms` and `last_ms` are the times of the ticks that made open and close.
    """

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    first_ms: int
    last_ms: int
    seq: int

    def add(self, tick: Tick, seq: int) -> None:
        """Apply one more tick, whatever its time.

        Its seq must be above that of the last one; any other counts as applied and changes nothing.
        """
        if seq <= self.seq:
            return
        self.seq = seq
        price, at_ms = tick.price, tick.at_ms
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        if at_ms >= self.last_ms:
            self.close, self.last_ms = price, at_ms
        elif at_ms < self.first_ms:
            self.open, self.first_ms = price, at_ms
        if tick.volume is not None:
            self.volume += tick.volume


class CandleKey(NamedTuple):
    """The key of one candle."""

    symbol: str
    interval: Interval
    open_ms: int


class KeyedCandle(NamedTuple):
    """A candle and its key."""

    key: CandleKey
    candle: Candle


def candle_of(tick: Tick, seq: int, interval_ms: int) -> Candle:
    """Return a new candle that holds one tick."""
    price, at_ms = tick.price, tick.at_ms
    return Candle(at_ms - at_ms % interval_ms, price, price, price, price, tick.volume or 0.0, at_ms, at_ms, seq)


class _Series:
    """The candles of one symbol and interval that differ from the database."""

    __slots__ = ("end_ms", "interval", "interval_ms", "newest", "newest_ms", "symbol", "unwritten", "writing")

    def __init__(self, symbol: str, interval: Interval) -> None:
        self.symbol = symbol
        self.interval = interval
        self.interval_ms = INTERVAL_MS[interval]
        self.newest: Candle | None = None
        self.newest_ms = -1  # when it opens
        self.end_ms = -1  # when it ends
        self.unwritten: dict[int, Candle] = {}
        self.writing: dict[int, Candle] = {}

    def begin(self, candle: Candle) -> None:
        """Make this the newest candle, and mark the previous one to be written."""
        if self.newest is not None:
            self.unwritten[self.newest_ms] = self.newest
        self.newest, self.newest_ms = candle, candle.open_ms
        self.end_ms = candle.open_ms + self.interval_ms

    def held(self) -> dict[int, Candle]:
        """Return all candles in memory, by opening time."""
        candles = {**self.writing, **self.unwritten}
        if self.newest is not None:
            candles[self.newest_ms] = self.newest
        return candles


class _Deferred(NamedTuple):
    """A tick that waits for its candle."""

    series: _Series
    open_ms: int
    tick: Tick
    seq: int


class CandleBook:
    """The series of all symbols. The feed bounds it by `backlog`."""

    def __init__(self) -> None:
        self._series: dict[str, tuple[_Series, ...]] = {}
        self._waiting: dict[_Series, None] = {}  # series with unwritten candles
        self._deferred: list[_Deferred] = []
        self._unwritten = 0

    @property
    def backlog(self) -> int:
        """Return the number of unwritten candles and deferred ticks."""
        return self._unwritten + len(self._deferred)

    @property
    def has_deferred(self) -> bool:
        """Return whether any tick waits for its candle to be read."""
        return bool(self._deferred)

    def apply(self, tick: Tick, seq: int) -> None:
        """Apply a tick to each of its four candles."""
        series_of_symbol = self._series.get(tick.symbol)
        if series_of_symbol is None:
            series_of_symbol = self._add(tick.symbol)
        at_ms = tick.at_ms
        for series in series_of_symbol:
            if series.newest_ms <= at_ms < series.end_ms and (newest := series.newest) is not None:
                newest.add(tick, seq)
            else:
                self._apply_elsewhere(series, tick, seq)

    def _apply_elsewhere(self, series: _Series, tick: Tick, seq: int) -> None:
        open_ms = tick.at_ms - tick.at_ms % series.interval_ms
        if open_ms > series.newest_ms:
            if series.newest is not None:
                self._note_unwritten(series)
            series.begin(candle_of(tick, seq, series.interval_ms))
        elif (candle := series.unwritten.get(open_ms)) is not None:
            candle.add(tick, seq)
        else:
            self._deferred.append(_Deferred(series, open_ms, tick, seq))

    def _add(self, symbol: str) -> tuple[_Series, ...]:
        series = self._series[symbol] = tuple(_Series(symbol, interval) for interval in Interval)
        return series

    def _note_unwritten(self, series: _Series) -> None:
        self._unwritten += 1
        self._waiting[series] = None

    # Reading back ---------------------------------------------------------------------------------------------------

    def missing(self) -> list[CandleKey]:
        """Return the candles that deferred ticks wait for."""
        keys = {
            CandleKey(series.symbol, series.interval, open_ms): None
            for series, open_ms, _, _ in self._deferred
            if open_ms not in series.unwritten and open_ms not in series.writing
        }
        return list(keys)

    def apply_deferred(self, read: Iterable[CandleKey], found: Mapping[CandleKey, Candle]) -> None:
        """Apply deferred ticks to the candles that were read. A tick without a stored candle begins a new one."""
        keys = set(read)
        deferred, self._deferred = self._deferred, []
        for late in deferred:
            series, open_ms, tick, seq = late
            candle = series.unwritten.get(open_ms)
            if candle is not None:
                candle.add(tick, seq)
            elif (key := CandleKey(series.symbol, series.interval, open_ms)) in keys:
                candle = found.get(key)
                if candle is None:
                    candle = candle_of(tick, seq, series.interval_ms)
                else:
                    candle.add(tick, seq)
                series.unwritten[open_ms] = candle
                self._note_unwritten(series)
            else:
                self._deferred.append(late)

    # Writing --------------------------------------------------------------------------------------------------------

    def take_unwritten(self) -> list[KeyedCandle]:
        """Return the candles to write. Call `written` or `write_failed` before the next call."""
        taking: list[KeyedCandle] = []
        for series in self._waiting:
            series.writing, series.unwritten = series.unwritten, {}
            for open_ms, candle in series.writing.items():
                taking.append(KeyedCandle(CandleKey(series.symbol, series.interval, open_ms), candle))
        self._unwritten = 0
        return taking

    def written(self) -> None:
        """Drop the candles of `take_unwritten`: they are on disk."""
        for series in self._waiting:
            series.writing = {}
        self._waiting = {series: None for series in self._waiting if series.unwritten}

    def write_failed(self) -> None:
        """Keep the candles of `take_unwritten`: they are not on disk.

        Ticks deferred meanwhile are applied now, before any later one: a candle ignores a tick whose seq is not above
        that of its last one.
        """
        for series in self._waiting:
            self._unwritten += len(series.writing)
            series.unwritten = {**series.writing, **series.unwritten}
            series.writing = {}
        self.apply_deferred((), {})

    # Reading --------------------------------------------------------------------------------------------------------

    def newest(self, symbol: str) -> dict[Interval, Candle]:
        """Return the newest candle of each interval."""
        return {series.interval: series.newest for series in self._series.get(symbol, ()) if series.newest is not None}

    def restore(self, symbol: str, newest: Mapping[Interval, Candle]) -> None:
        """Continue from the newest candles that were stored."""
        for series in self._add(symbol):
            if series.interval in newest:
                series.begin(newest[series.interval])

    def held(self, symbol: str, interval: Interval) -> dict[int, Candle]:
        """Return the candles of a series that differ from the database, by opening time."""
        for series in self._series.get(symbol, ()):
            if series.interval is interval:
                return series.held()
        return {}
