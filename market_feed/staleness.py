"""Stale prices: the symbols without a tick for too long, and the source of each symbol's last price. Pure."""

from collections.abc import Callable, Iterable

from market_feed.market import Market, Source
from market_feed.quotes import Quote


class Staleness:
    """Sets and clears the `stale` mark of a market's quotes. Bound: two entries per symbol."""

    def __init__(self, market: Market, stale_s: float, clock_s: Callable[[], float]) -> None:
        self._market = market
        self._clock_s = clock_s
        recovered_s = clock_s()
        self._stale_at_s = {symbol: recovered_s + stale_s for symbol in market.quotes}
        self._price_sources: dict[str, str] = {}  # by symbol

    @property
    def stale_count(self) -> int:
        """Return the number of symbols with a stale price."""
        return len(self._market.quotes) - len(self._stale_at_s)

    def moved(self, quotes: Iterable[Quote], source: Source) -> None:
        """Record the source of these new prices, and clear their stale mark."""
        stale_at_s = self._clock_s() + source.stale_s
        for quote in quotes:
            self._stale_at_s[quote.symbol] = stale_at_s
            self._price_sources[quote.symbol] = source.name
            quote.stale = False

    def is_priced_by_another(self, source: Source, symbol: str) -> bool:
        """Return whether another source sent the symbol's last price, and it is not stale."""
        return self._price_sources.get(symbol, source.name) != source.name and not self._market.quotes[symbol].stale

    def sweep(self) -> list[str]:
        """Mark overdue prices as stale, and return the symbols that were not stale before."""
        now_s = self._clock_s()
        due = [symbol for symbol, at_s in self._stale_at_s.items() if at_s <= now_s]
        marked: list[str] = []
        for symbol in due:
            del self._stale_at_s[symbol]
            if not self._market.quotes[symbol].stale:
                self._market.mark_stale(symbol)
                marked.append(symbol)
        return marked
