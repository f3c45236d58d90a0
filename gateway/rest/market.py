"""REST calls for prices, symbols and candles."""

import re
from typing import Annotated

import msgspec

from gateway.rest.call import Calls, get
from gateway.rest.envelope import RequestStruct
from shared.commands import market
from shared.commands.command import Caller
from shared.commands.market import CANDLES_DEFAULT, CANDLES_MAX, Interval
from shared.errors import ErrorCode, Refusal
from shared.protocol.server_frames import PriceData
from shared.protocol.validation import Symbol, is_symbol
from shared.times import from_iso, to_iso

SYMBOLS_MAX = 200

_MILLISECONDS = re.compile(r"[0-9]{1,14}")
_TIME_SCHEMA = {"anyOf": [{"format": "date-time"}, {"pattern": f"^{_MILLISECONDS.pattern}$"}]}
Time = Annotated[
    str, msgspec.Meta(description="ISO 8601, or milliseconds since the Unix epoch", extra_json_schema=_TIME_SCHEMA)
]


class PricesQuery(RequestStruct, frozen=True):
    """`symbols` is separated by commas; without it, all symbols are returned."""

    symbols: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=SYMBOLS_MAX)] | None = None


class CandlesQuery(RequestStruct, frozen=True):
    """A symbol, an interval and an optional time range, both ends included."""

    symbol: Symbol
    interval: Interval = Interval.MINUTE
    from_: Time | None = msgspec.field(default=None, name="from")
    to: Time | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=CANDLES_MAX)] = CANDLES_DEFAULT


class MarketCalls(Calls):
    """Market data."""

    @get("/v1/market/prices")
    async def get_prices(self, caller: Caller, query: PricesQuery) -> tuple[PriceData, ...]:
        """Return the latest prices of `symbols` in that order, or of all symbols. Unknown symbols are omitted."""
        symbols = None if query.symbols is None else tuple(filter(is_symbol, dict.fromkeys(query.symbols)))
        return (await self._backend.prices(caller, symbols)).prices

    @get("/v1/market/symbols")
    async def list_symbols(self, caller: Caller) -> tuple[market.SymbolData, ...]:
        """Return all known symbols."""
        query = market.GetSymbols(**self._backend.request_fields(caller))
        return (await self._backend.market_request(query, market.Symbols)).symbols

    @get("/v1/market/candles", ErrorCode.NOT_FOUND)
    async def list_candles(self, caller: Caller, query: CandlesQuery) -> tuple[market.CandleData, ...]:
        """Return candles of one symbol, oldest first.

        If the range holds more than `limit` candles, the oldest are returned when `from` is given, otherwise the
        newest.
        """
        command = market.GetCandles(
            **self._backend.request_fields(caller),
            symbol=query.symbol,
            interval=query.interval,
            from_ms=_time("from", query.from_),
            to_ms=_time("to", query.to),
            limit=query.limit,
        )
        return (await self._backend.market_request(command, market.Candles)).candles


def _time(field: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        at_ms = int(text) if _MILLISECONDS.fullmatch(text) else from_iso(text)
        to_iso(at_ms)  # reject a time outside the range of ISO 8601
    except (ValueError, OverflowError):
        raise Refusal.invalid(field, "must be an ISO 8601 time or milliseconds since the Unix epoch") from None
    return at_ms
