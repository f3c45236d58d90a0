"""Answers to gateways' queries, from memory or, for older candles, from the database."""

from collections.abc import Callable
from typing import assert_never

from market_feed.candles import INTERVAL_MS, Candle
from market_feed.journal import Journal
from market_feed.market import Market
from market_feed.quotes import VOLUME_DIGITS, price_data
from market_feed.store import MarketStore
from shared.commands.market import (
    AnyMarketRequest,
    CandleData,
    Candles,
    GetCandles,
    GetPrices,
    GetSymbols,
    Interval,
    Prices,
    SymbolData,
    Symbols,
)
from shared.errors import Refusal
from shared.times import to_iso

TIME_MAX_MS = 10**15 - 1


class MarketQueryHandler:
    """Answers `AnyMarketRequest`."""

    def __init__(self, market: Market, journal: Journal, store: MarketStore, clock_ms: Callable[[], int]) -> None:
        self._market = market
        self._journal = journal
        self._store = store
        self._clock_ms = clock_ms

    async def answer(self, query: AnyMarketRequest) -> Prices | Symbols | Candles:
        """Return the reply to one query. Raises Refusal and Unavailable."""
        match query:
            case GetPrices():
                return self._prices(query.symbols)
            case GetSymbols():
                return self._symbols()
            case GetCandles():
                return await self._candles(query)
            case _:
                assert_never(query)

    def _prices(self, symbols: tuple[str, ...] | None) -> Prices:
        quotes = self._market.quotes
        asked = sorted(quotes) if symbols is None else dict.fromkeys(symbols)
        return Prices(
            prices=tuple(price_data(quotes[symbol]) for symbol in asked if symbol in quotes),
            unknown=tuple(symbol for symbol in asked if symbol not in quotes),
        )

    def _symbols(self) -> Symbols:
        quotes = self._market.quotes
        return Symbols(
            symbols=tuple(
                SymbolData(symbol=symbol, digits=quote.digits, timestamp=to_iso(quote.at_ms), stale=quote.stale)
                for symbol, quote in sorted(quotes.items())
            )
        )

    async def _candles(self, query: GetCandles) -> Candles:
        if query.symbol not in self._market.quotes:
            raise Refusal.not_found("symbol")
        await self._journal.read_late_candles()
        from_ms = max(query.from_ms or 0, 0)
        to_ms = min(TIME_MAX_MS if query.to_ms is None else query.to_ms, TIME_MAX_MS)
        newest = query.from_ms is None
        before = self._market.book.held(query.symbol, query.interval)  # before some are written
        stored = await self._store.candles(query.symbol, query.interval, from_ms, to_ms, query.limit, newest=newest)
        found = {**before, **{candle.open_ms: candle for candle in stored}}
        found |= self._market.book.held(query.symbol, query.interval)
        chosen = sorted(open_ms for open_ms in found if from_ms <= open_ms <= to_ms)
        chosen = chosen[-query.limit :] if newest else chosen[: query.limit]
        now_ms = self._clock_ms()
        return Candles(
            candles=tuple(_to_data(query.symbol, query.interval, found[open_ms], now_ms) for open_ms in chosen)
        )


def _to_data(symbol: str, interval: Interval, candle: Candle, now_ms: int) -> CandleData:
    return CandleData(
        symbol=symbol,
        interval=interval,
        open_time=to_iso(candle.open_ms),
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=round(candle.volume, VOLUME_DIGITS),
        closed=candle.open_ms + INTERVAL_MS[interval] <= now_ms,
    )
