"""Queries for market_feed on `market.queries`, and the ticks that market_feed sends to notifier. Pure."""

from enum import StrEnum
from typing import Annotated

import msgspec

from shared.commands.command import ServiceRequest
from shared.protocol.server_frames import PriceData
from shared.protocol.validation import Time
from shared.protocol.wire_struct import WireStruct

CANDLES_DEFAULT = 500
CANDLES_MAX = 5000


class Interval(StrEnum):
    """The length of a candle."""

    MINUTE = "1m"
    FIVE_MINUTES = "5m"
    HOUR = "1h"
    DAY = "1d"


class GetPrices(ServiceRequest, frozen=True, kw_only=True, tag="prices"):
    """Get the latest prices of these symbols, or of all. Reply: `Prices`."""

    symbols: tuple[str, ...] | None = None


class Prices(WireStruct, frozen=True, kw_only=True):
    """The latest prices, and the symbols that are unknown."""

    prices: tuple[PriceData, ...]
    unknown: tuple[str, ...]


class GetSymbols(ServiceRequest, frozen=True, kw_only=True, tag="symbols"):
    """Get every known symbol, in order. Reply: `Symbols`."""


class SymbolData(WireStruct, frozen=True, kw_only=True):
    """A symbol. Its prices have `digits` decimal places; `timestamp` is the time of the last one."""

    symbol: str
    digits: int
    timestamp: Time
    stale: bool


class Symbols(WireStruct, frozen=True, kw_only=True):
    """The known symbols, in order."""

    symbols: tuple[SymbolData, ...]


class GetCandles(ServiceRequest, frozen=True, kw_only=True, tag="candles"):
    """Get the candles of a symbol that open from `from_ms` through `to_ms`, both inclusive. Reply: `Candles`.

    Beyond `limit` the reply holds the oldest if `from_ms` is given, otherwise the newest. Raises NOT_FOUND for an
    unknown symbol.
    """

    symbol: str
    interval: Interval
    from_ms: int | None = None
    to_ms: int | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=CANDLES_MAX)] = CANDLES_DEFAULT


class CandleData(WireStruct, frozen=True, kw_only=True):
    """A candle as clients see it. A `closed` candle has ended; a late tick may still correct it."""

    symbol: str
    interval: Interval
    open_time: Time
    open: float
    high: float
    low: float
    close: float
    volume: float
    closed: bool


class Candles(WireStruct, frozen=True, kw_only=True):
    """Candles, oldest first."""

    candles: tuple[CandleData, ...]


AnyMarketRequest = GetPrices | GetSymbols | GetCandles


class AppliedTick(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A tick that was applied: `[symbol, price, seq, at_ms]` on the wire. `seq` grows with each tick of a symbol."""

    symbol: str
    price: float
    seq: int
    at_ms: int


class AppliedTicks(WireStruct, frozen=True, kw_only=True):
    """A line of the queue `notifier.ticks`: ticks in order.

    Ticks are missing only after a long outage, when the announcer or the queue had to drop its oldest. After a fault
    some ticks are repeated with the same seqs. A late tick has an older time than the previous one.
    """

    ticks: list[AppliedTick]
