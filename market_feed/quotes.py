"""The latest price of a symbol, and the reference price of its change. Pure.

A tick is one price at one time. A quote is the state of a symbol: the newest tick by its own time, the change against
the close of the previous UTC day (or the first price seen), the volume of the UTC day so far. A late tick corrects
earlier values but not the price.
"""

from decimal import Decimal

import msgspec

from shared.protocol.server_frames import PriceData
from shared.times import MILLISECONDS_PER_DAY, to_iso

SEQS_PER_TERM = 10**10
SIGNIFICANT_DIGITS = 12  # more digits would be float noise: 1.0875000000000001
DIGITS_MAX = 12
PERCENT_DIGITS = 2
VOLUME_DIGITS = 8  # more digits would come from adding floats


class Tick(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One price at one time. `volume` is that of the trade; `at_ms` is the source's time, ms since 1970."""

    symbol: str
    price: float
    at_ms: int
    bid: float | None = None
    ask: float | None = None
    volume: float | None = None


class Quote(msgspec.Struct, gc=False):
    """The state of a symbol.

    `seq` grows with every tick, late ones included, and over every restart. `reference` is the close of the last UTC
    day before `day` that had a price, from `reference_at_ms`; without one it is the first price seen, and
    `reference_at_ms` is -1.
    """

    symbol: str
    price: float
    at_ms: int
    seq: int
    day: int
    reference: float
    digits: int
    reference_at_ms: int = -1
    bid: float | None = None
    ask: float | None = None
    volume: float | None = None
    stale: bool = False


def first_quote(tick: Tick, seq: int, digits: int = 0) -> Quote:
    """Return the first quote of a symbol. It shows at least `digits` decimal places."""
    return Quote(
        symbol=tick.symbol,
        price=tick.price,
        at_ms=tick.at_ms,
        seq=seq,
        day=tick.at_ms // MILLISECONDS_PER_DAY,
        reference=tick.price,
        digits=max(digits, digits_of(tick.price)),
        bid=tick.bid,
        ask=tick.ask,
        volume=tick.volume,
    )


def advance(quote: Quote, tick: Tick, seq: int) -> bool:
    """Apply the symbol's next tick, and return whether it is the newest by its time and so sets the price."""
    quote.seq = seq
    if tick.at_ms < quote.at_ms:
        _correct(quote, tick)
        return False
    day = tick.at_ms // MILLISECONDS_PER_DAY
    if day != quote.day:
        quote.reference, quote.reference_at_ms = quote.price, quote.at_ms
        quote.day, quote.volume = day, None
    price = tick.price
    quote.price, quote.at_ms = price, tick.at_ms
    quote.bid, quote.ask = tick.bid, tick.ask
    if tick.volume is not None:
        quote.volume = (quote.volume or 0.0) + tick.volume
    if round(price, quote.digits) != price:
        quote.digits = max(quote.digits, digits_of(price))
    return True


def _correct(quote: Quote, tick: Tick) -> None:
    if tick.at_ms // MILLISECONDS_PER_DAY == quote.day:
        if tick.volume is not None:
            quote.volume = (quote.volume or 0.0) + tick.volume
    elif tick.at_ms >= quote.reference_at_ms:
        quote.reference, quote.reference_at_ms = tick.price, tick.at_ms


def digits_of(price: float) -> int:
    """Return the number of decimal places of a price: 4 for 1.0875. At most 12, without a float's noise."""
    exponent = Decimal(f"{price:.{SIGNIFICANT_DIGITS}g}").normalize().as_tuple().exponent
    return min(max(-int(exponent), 0), DIGITS_MAX)


def first_seq(term: int) -> int:
    """Return the first seq of a term, above those of all earlier terms, so that no restart repeats a seq."""
    return term * SEQS_PER_TERM + 1


def price_data(quote: Quote, *, ends_staleness: bool = False) -> PriceData:
    """Return a quote as clients see it.

    `stale` is true while the price is stale, false once when that ends, and otherwise absent.
    """
    digits = quote.digits
    change = quote.price - quote.reference
    stale = True if quote.stale else (False if ends_staleness else None)
    return PriceData(
        symbol=quote.symbol,
        price=round(quote.price, digits),
        change=round(change, digits),
        change_percent=round(change / quote.reference * 100, PERCENT_DIGITS),
        timestamp=to_iso(quote.at_ms),
        seq=quote.seq,
        bid=quote.bid,
        ask=quote.ask,
        volume=None if quote.volume is None else round(quote.volume, VOLUME_DIGITS),
        stale=stale,
    )
