"""Prices, symbols and candles over REST."""

from typing import Annotated

import msgspec
from aiohttp import web

from gateway.backend import Backend
from gateway.guard import Guard
from gateway.rest.envelope import Calls, In, query_of, success
from shared import market_commands as market
from shared import validation
from shared.errors import Refusal
from shared.market_commands import CANDLES_DEFAULT, CANDLES_MAX, Interval
from shared.times import from_iso
from shared.validation import Symbol

SYMBOLS_MAX = 200


class PricesQuery(In, frozen=True):
    symbols: Annotated[str, msgspec.Meta(max_length=8000)] | None = None


class Symbols(In, frozen=True):
    symbols: Annotated[tuple[Symbol, ...], msgspec.Meta(min_length=1, max_length=SYMBOLS_MAX)]


class CandlesQuery(In, frozen=True):
    """`from` and `to`: ISO 8601 times or milliseconds since 1970."""

    symbol: Symbol
    interval: Interval = Interval.MINUTE
    from_: str | None = msgspec.field(default=None, name="from")
    to: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=CANDLES_MAX)] = CANDLES_DEFAULT


class MarketCalls(Calls):
    """The handlers; each raises Refusal or Unavailable, of which `gateway.app` makes the failure envelope."""

    def __init__(self, guard: Guard, backend: Backend) -> None:
        super().__init__(guard)
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        """The calls of this group."""
        return [
            web.get("/v1/market/prices", self.prices),
            web.get("/v1/market/symbols", self.symbols),
            web.get("/v1/market/candles", self.candles),
        ]

    async def prices(self, request: web.Request) -> web.Response:
        """The latest prices of `symbols`, in their order, or of all; unknown symbols are absent."""
        caller = self.caller(request)
        asked = query_of(request, PricesQuery).symbols
        symbols = None
        if asked is not None:
            names = [part.strip() for part in asked.split(",") if part.strip()]
            symbols = tuple(dict.fromkeys(validation.convert({"symbols": names}, Symbols).symbols))
        found = await self._backend.prices(caller, symbols)
        return success(found.prices)

    async def symbols(self, request: web.Request) -> web.Response:
        """Every known symbol."""
        query = market.GetSymbols(**self._backend.head(self.caller(request)))
        return success((await self._backend.market_query(query, market.Symbols)).symbols)

    async def candles(self, request: web.Request) -> web.Response:
        """Candles of one symbol, oldest first."""
        caller = self.caller(request)
        query = query_of(request, CandlesQuery)
        command = market.GetCandles(
            **self._backend.head(caller),
            symbol=query.symbol,
            interval=query.interval,
            from_ms=_time("from", query.from_),
            to_ms=_time("to", query.to),
            limit=query.limit,
        )
        return success((await self._backend.market_query(command, market.Candles)).candles)


def _time(field: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text) if text.isdecimal() else from_iso(text)
    except (ValueError, OverflowError):
        raise Refusal.invalid(field, "must be an ISO 8601 time or milliseconds since 1970") from None
