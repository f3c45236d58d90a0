"""What gateways ask of market_feed: queries on `market.query`. Pure."""

from shared.commands import Command, Wire
from shared.protocol import PriceData


class GetPrices(Command, frozen=True, kw_only=True, tag="prices"):
    """Latest prices of these symbols, or of all. Reply: `Prices`."""

    symbols: tuple[str, ...] | None = None


class Prices(Wire, frozen=True, kw_only=True):
    prices: tuple[PriceData, ...]
    unknown: tuple[str, ...]


MarketQueries = GetPrices
