"""A simulated market: seeded random walks at realistic levels. For development, demonstrations and tests.

The walk is geometric with a weak pull back to its level (mean reversion), so that prices stay plausible for years.
Ticks arrive at random times at the configured average rate. A symbol with another source is not simulated until its
price is stale.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from market_feed.market import Source
from market_feed.quotes import Tick
from market_feed.sources.tick_sink import TickSink

NAME = "sim"
STEP_S = 0.05
SECONDS_PER_YEAR = 365.25 * 86_400
PULL_PER_YEAR = 4.0  # how fast a deviation from the level decays


class Instrument(NamedTuple):
    """The behaviour of a symbol: annual `volatility`, `spread` in price units, `lot` as the typical trade volume."""

    symbol: str
    level: float
    digits: int
    volatility: float
    spread: float
    lot: float


INSTRUMENTS = (
    Instrument("EUR/USD", 1.0850, 5, 0.07, 0.00008, 100_000),
    Instrument("GBP/USD", 1.2700, 5, 0.08, 0.00010, 100_000),
    Instrument("USD/JPY", 150.00, 3, 0.09, 0.010, 100_000),
    Instrument("GBP/JPY", 190.50, 3, 0.10, 0.018, 100_000),
    Instrument("AUD/USD", 0.6550, 5, 0.10, 0.00009, 100_000),
    Instrument("USD/CHF", 0.8800, 5, 0.08, 0.00012, 100_000),
    Instrument("USD/CAD", 1.3600, 5, 0.07, 0.00014, 100_000),
    Instrument("XAU/USD", 2400.00, 2, 0.15, 0.30, 10),
    Instrument("XAG/USD", 28.500, 3, 0.28, 0.020, 500),
    Instrument("BTC/USD", 65000.00, 2, 0.50, 5.00, 0.2),
    Instrument("ETH/USD", 3200.00, 2, 0.65, 0.40, 2),
    Instrument("US500", 5400.00, 2, 0.16, 0.50, 5),
    Instrument("NAS100", 19000.00, 2, 0.21, 1.50, 3),
    Instrument("WTI/USD", 78.00, 2, 0.35, 0.03, 100),
)
_BY_SYMBOL = {instrument.symbol: instrument for instrument in INSTRUMENTS}


def instrument_of(symbol: str) -> Instrument:
    """Return the symbol's instrument, or a plain one for an unknown symbol."""
    return _BY_SYMBOL.get(symbol) or Instrument(symbol, 100.00, 2, 0.30, 0.02, 100)


class Walk:
    """One symbol's random walk. The same seed and start give the same ticks."""

    def __init__(self, instrument: Instrument, seed: int, start: float) -> None:
        self.instrument = instrument
        self._random = Random(f"{seed} {instrument.symbol}")  # noqa: S311 - a simulation
        self._price = start

    def step(self, elapsed_s: float, rate_per_s: float, at_ms: int) -> list[Tick]:
        """Return the ticks of the elapsed time, all with the time `at_ms`."""
        count = int(elapsed_s * rate_per_s + self._random.random())
        return [self._tick(1 / rate_per_s, at_ms) for _ in range(count)]

    def _tick(self, elapsed_s: float, at_ms: int) -> Tick:
        level, digits, volatility = self.instrument.level, self.instrument.digits, self.instrument.volatility
        years = elapsed_s / SECONDS_PER_YEAR
        pull = PULL_PER_YEAR * years * math.log(level / self._price)
        self._price *= math.exp(pull + volatility * math.sqrt(years) * self._random.gauss(0, 1))
        half = self.instrument.spread / 2 * self._random.uniform(0.8, 1.2)
        return Tick(
            symbol=self.instrument.symbol,
            price=round(self._price, digits),
            at_ms=at_ms,
            bid=round(self._price - half, digits),
            ask=round(self._price + half, digits),
            volume=round(self.instrument.lot * self._random.lognormvariate(0, 0.7), 2),
        )


class Simulation:
    """Runs a walk per symbol, from its last known price."""

    def __init__(
        self,
        sink: TickSink,
        stale_s: float,
        symbols: Sequence[str],
        seed: int,
        rate_per_s: float,
        clock_ms: Callable[[], int],
    ) -> None:
        self._sink = sink
        self._clock_ms = clock_ms
        self._source = Source(NAME, stale_s)
        self._rate_per_s = rate_per_s
        self._walks = [
            Walk(instrument, seed, sink.price_of(instrument.symbol) or instrument.level)
            for instrument in map(instrument_of, symbols or _BY_SYMBOL)
        ]

    async def run(self) -> None:
        """Generate ticks until cancelled."""
        before_s = time.monotonic()
        while True:
            await asyncio.sleep(STEP_S)
            now_s = time.monotonic()
            elapsed_s, before_s = min(now_s - before_s, 1.0), now_s
            for walk in self._walks:
                ticks = walk.step(elapsed_s, self._rate_per_s, self._clock_ms())
                if ticks and not self._sink.is_priced_by_another(self._source, walk.instrument.symbol):
                    self._sink.offer(self._source, ticks, digits=walk.instrument.digits)
