"""Stale prices: marked when their source falls silent, cleared when it moves them again."""

from market_feed.market import Market, Source
from market_feed.quotes import Tick
from market_feed.staleness import Staleness

FAST, SLOW = Source("fast", 5.0), Source("slow", 60.0)


class ManualClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def market_with(*symbols: str) -> Market:
    market = Market(1)
    market.ingest([Tick(symbol, 1.0, 1000) for symbol in symbols])
    return market


def test_price_goes_stale_after_the_silence_of_its_source() -> None:
    clock, market = ManualClock(), market_with("X", "Y")
    staleness = Staleness(market, 60.0, clock)
    staleness.moved([market.quotes["X"]], FAST)
    clock.now_s += 5.0
    assert staleness.sweep() == ["X"]
    assert market.quotes["X"].stale
    assert not market.quotes["Y"].stale
    assert staleness.stale_count == 1
    assert staleness.sweep() == []


def test_recovered_price_goes_stale_after_the_default_silence() -> None:
    clock, market = ManualClock(), market_with("X")
    staleness = Staleness(market, 60.0, clock)
    clock.now_s += 59.9
    assert staleness.sweep() == []
    clock.now_s += 0.1
    assert staleness.sweep() == ["X"]


def test_next_move_clears_the_mark() -> None:
    clock, market = ManualClock(), market_with("X")
    staleness = Staleness(market, 1.0, clock)
    clock.now_s += 1.0
    staleness.sweep()
    staleness.moved([market.quotes["X"]], SLOW)
    assert not market.quotes["X"].stale
    assert staleness.stale_count == 0


def test_symbol_is_priced_by_its_last_source_until_stale() -> None:
    clock, market = ManualClock(), market_with("X")
    staleness = Staleness(market, 60.0, clock)
    assert not staleness.is_priced_by_another(SLOW, "X")
    staleness.moved([market.quotes["X"]], FAST)
    assert staleness.is_priced_by_another(SLOW, "X")
    assert not staleness.is_priced_by_another(FAST, "X")
    clock.now_s += FAST.stale_s
    staleness.sweep()
    assert not staleness.is_priced_by_another(SLOW, "X")
