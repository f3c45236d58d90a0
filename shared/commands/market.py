"""What gateways ask of market_feed: queries on `market.query`; and what market_feed tells notifier. Pure."""

from enum import StrEnum
from typing import Annotated

import msgspec

from shared.commands.command import Command
from shared.protocol.server_frames import PriceData
from shared.protocol.validation import Time
from shared.protocol.wire_struct import WireStruct

CANDLES_DEFAULT = 500
CANDLES_MAX = 5000


class Interval(StrEnum):
    """The lengths of a candle."""

    MINUTE = "1m"
    FIVE_MINUTES = "5m"
    HOUR = "1h"
    DAY = "1d"


class GetPrices(Command, frozen=True, kw_only=True, tag="prices"):
    """Latest prices of these symbols, or of all. Reply: `Prices`."""

    symbols: tuple[str, ...] | None = None


class Prices(WireStruct, frozen=True, kw_only=True):
    prices: tuple[PriceData, ...]
    unknown: tuple[str, ...]


class GetSymbols(Command, frozen=True, kw_only=True, tag="symbols"):
    """Every known symbol, in order. Reply: `Symbols`."""


class SymbolData(WireStruct, frozen=True, kw_only=True):
    """`digits` are those after the point that its prices are shown with; `timestamp` is of its last price."""

    symbol: str
    digits: int
    timestamp: Time
    stale: bool


class Symbols(WireStruct, frozen=True, kw_only=True):
    symbols: tuple[SymbolData, ...]


class GetCandles(Command, frozen=True, kw_only=True, tag="candles"):
    """Candles of a symbol that open from `from_ms` through `to_ms`, both included. Reply: `Candles`.

    Where more than `limit` do: with `from_ms` the oldest of them, else the newest. NOT_FOUND for an unknown symbol.
    """

    symbol: str
    interval: Interval
    from_ms: int | None = None
    to_ms: int | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=CANDLES_MAX)] = CANDLES_DEFAULT


class CandleData(WireStruct, frozen=True, kw_only=True):
    """A candle as clients see it. `closed`: its time is over; a tick that comes late may still correct it."""

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
    """Oldest first."""

    candles: tuple[CandleData, ...]


MarketQueries = GetPrices | GetSymbols | GetCandles


class AppliedTick(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A tick that counts: on the wire `[symbol, price, seq, at_ms]`. `seq` grows with every tick of its symbol."""

    symbol: str
    price: float
    seq: int
    at_ms: int


class AppliedTicks(WireStruct, frozen=True, kw_only=True):
    """A line of the queue `notifier.ticks`: every tick, in order, none left out.

    After a fault some may come twice, with the same seqs. A tick that came late has an older time than the one before.
    """

    ticks: list[AppliedTick]
