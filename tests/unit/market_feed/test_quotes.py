"""Quotes: the newest price, its reference, and the effect of late ticks."""

from hypothesis import given
from hypothesis import strategies as st

from market_feed.quotes import Quote, Tick, advance, digits_of, first_quote, first_seq, price_data
from shared.times import MILLISECONDS_PER_DAY

DAY_MS = MILLISECONDS_PER_DAY


def quote_of(*ticks: Tick) -> Quote:
    """Return the quote after these ticks, with seqs from 1."""
    quote = first_quote(ticks[0], 1)
    for seq, tick in enumerate(ticks[1:], 2):
        advance(quote, tick, seq)
    return quote


def test_first_tick_is_its_own_reference() -> None:
    data = price_data(quote_of(Tick("EUR/USD", 1.0875, 1_761_048_000_000, bid=1.0874, ask=1.0876, volume=3.0)))
    assert (data.symbol, data.price, data.change, data.change_percent) == ("EUR/USD", 1.0875, 0.0, 0.0)
    assert (data.timestamp, data.seq) == ("2025-10-21T12:00:00.000Z", 1)
    assert (data.bid, data.ask, data.volume, data.stale) == (1.0874, 1.0876, 3.0, None)


def test_change_compares_with_close_of_previous_utc_day() -> None:
    quote = quote_of(
        Tick("EUR/USD", 1.0, 10),
        Tick("EUR/USD", 1.08, DAY_MS - 1),
        Tick("EUR/USD", 1.09, DAY_MS),
        Tick("EUR/USD", 1.0825, DAY_MS + 5),
    )
    data = price_data(quote)
    assert (data.change, data.change_percent) == (0.0025, 0.23)


def test_days_without_ticks_are_skipped() -> None:
    quote = quote_of(Tick("X", 100.0, 5), Tick("X", 110.0, 7 * DAY_MS))
    assert (quote.reference, quote.reference_at_ms, price_data(quote).change_percent) == (100.0, 5, 10.0)


def test_late_tick_keeps_price_and_adds_volume() -> None:
    quote = quote_of(Tick("X", 2.0, 1000, volume=1.0), Tick("X", 3.0, 2000, volume=1.0))
    assert not advance(quote, Tick("X", 9.0, 1500, volume=5.0), 3)
    assert (quote.price, quote.at_ms, quote.volume, quote.seq) == (3.0, 2000, 7.0, 3)


def test_late_tick_of_previous_day_corrects_reference() -> None:
    quote = quote_of(Tick("X", 2.0, 1000), Tick("X", 3.0, DAY_MS))
    advance(quote, Tick("X", 2.5, 2000), 3)
    assert quote.reference == 2.5
    advance(quote, Tick("X", 1.5, 500), 4)
    assert quote.reference == 2.5


def test_late_tick_of_previous_day_replaces_first_price_as_reference() -> None:
    quote = quote_of(Tick("X", 3.0, DAY_MS), Tick("X", 2.0, 1000))
    assert (quote.price, quote.reference) == (3.0, 2.0)


def test_tick_with_same_time_is_newer() -> None:
    assert quote_of(Tick("X", 2.0, 1000), Tick("X", 3.0, 1000)).price == 3.0


def test_volume_restarts_each_day() -> None:
    quote = quote_of(Tick("X", 2.0, 1000, volume=4.0), Tick("X", 2.0, DAY_MS, volume=1.5))
    assert quote.volume == 1.5


def test_tick_without_bid_and_ask_clears_them() -> None:
    quote = quote_of(Tick("X", 2.0, 1000, bid=1.9, ask=2.1), Tick("X", 2.5, 2000))
    assert (quote.bid, quote.ask) == (None, None)


def test_stale_quote_is_shown_as_stale() -> None:
    quote = quote_of(Tick("X", 2.0, 1000))
    quote.stale = True
    assert price_data(quote).stale is True
    quote.stale = False
    assert price_data(quote, ends_staleness=True).stale is False
    assert price_data(quote).stale is None


def test_digits_grow_with_prices_and_round_change() -> None:
    quote = quote_of(Tick("X", 1.1, 1), Tick("X", 1.3, 2))
    assert (quote.digits, price_data(quote).change) == (1, 0.2)
    advance(quote, Tick("X", 1.12345, 3), 3)
    assert (quote.digits, price_data(quote).change) == (5, 0.02345)


def test_float_noise_adds_no_digits() -> None:
    assert digits_of(1.0875000000000001) == 4
    assert digits_of(0.1 + 0.2) == 1
    assert digits_of(65000.0) == 0
    assert digits_of(0.00000123) == 8
    assert digits_of(1e-11) == 11
    assert digits_of(1e-20) == 12


def test_seqs_of_term_exceed_previous_term() -> None:
    assert first_seq(2) > first_seq(1) + 10**9


ticks = st.builds(
    Tick,
    symbol=st.just("X"),
    price=st.floats(0.01, 1e6),
    at_ms=st.integers(0, 4 * DAY_MS),
    volume=st.none() | st.integers(0, 1000).map(float),
)


@given(st.lists(ticks, min_size=1, max_size=40, unique_by=lambda tick: tick.at_ms))
def test_quote_is_independent_of_tick_order(arriving: list[Tick]) -> None:
    quote = quote_of(*arriving)
    newest = max(arriving, key=lambda tick: tick.at_ms)
    day = newest.at_ms // DAY_MS
    before = [tick for tick in arriving if tick.at_ms // DAY_MS < day]
    today = [tick.volume for tick in arriving if tick.at_ms // DAY_MS == day and tick.volume is not None]
    assert (quote.price, quote.at_ms, quote.seq) == (newest.price, newest.at_ms, len(arriving))
    assert quote.volume == (sum(today) if today else None)
    if before:
        assert quote.reference == max(before, key=lambda tick: tick.at_ms).price
    else:
        assert quote.reference == arriving[0].price
    assert round(price_data(quote).price, 12) == round(newest.price, quote.digits)
