"""The feed: applies ticks of every source, delivers prices to gateways, announces every tick to notifier."""

from collections.abc import Callable, Collection, Sequence

from market_feed import metrics
from market_feed.announcer import Announcer
from market_feed.journal import Journal
from market_feed.market import SEEN_EVENTS_MAX, Market, Position, Source
from market_feed.price_publisher import PricePublisher
from market_feed.quotes import Tick
from market_feed.staleness import Staleness
from shared.errors import Unavailable
from shared.waiting import until_next

PENDING_TICKS_MAX = 200_000
BACKLOG_MAX = 400_000
SEEN_MAX = 2 * SEEN_EVENTS_MAX
SWEEP_INTERVAL_S = 0.5


class Feed:
    """The service during one term of ownership: the `TickSink` of all sources.

    Bounds: 200,000 ticks that wait for the journal, 400,000 candles to be written, the keys of 400,000 events. Beyond
    any of them no tick is accepted.
    """

    def __init__(
        self,
        market: Market,
        journal: Journal,
        announcer: Announcer,
        prices: PricePublisher,
        staleness: Staleness,
        owns: Callable[[], bool],
        clock_ms: Callable[[], int],
    ) -> None:
        self._market = market
        self._journal = journal
        self._announcer = announcer
        self._prices = prices
        self._staleness = staleness
        self._owns = owns
        self._clock_ms = clock_ms
        metrics.SYMBOLS.set(len(market.quotes))

    def check_open(self) -> None:
        """Raise Unavailable if no tick can be accepted: ownership is in doubt, or a bound is reached."""
        if not self._owns():
            raise Unavailable("ownership of the symbols is in doubt: the lease could not be renewed")
        market = self._market
        if market.pending > PENDING_TICKS_MAX or market.book.backlog > BACKLOG_MAX or len(market.seen) > SEEN_MAX:
            raise Unavailable("too many ticks, candles or event keys wait for the database")

    def has_room_for(self, symbol: str) -> bool:
        """Return whether the symbol is known or may be added."""
        return self._market.has_room_for(symbol)

    async def look_up(self, event_keys: Collection[bytes]) -> None:
        """Look up which of these events were processed in the last 7 days. `is_new` is valid until the next `await`.

        Raises Unavailable.
        """
        await self._journal.look_up(event_keys)

    def is_new(self, event_key: bytes) -> bool:
        """Return whether no tick of the event was taken so far."""
        return event_key not in self._market.seen

    def price_of(self, symbol: str) -> float | None:
        """Return the symbol's latest price, or None for an unknown symbol."""
        quote = self._market.quotes.get(symbol)
        return None if quote is None else quote.price

    def position_of(self, source: str) -> int:
        """Return the number of the last tick read from a source that can be re-read; 0 at its beginning."""
        return self._market.positions.get(source, 0)

    def is_priced_by_another(self, source: Source, symbol: str) -> bool:
        """Return whether another source sent the symbol's last price, and it is not stale."""
        return self._staleness.is_priced_by_another(source, symbol)

    def ingest(
        self,
        source: Source,
        ticks: Sequence[Tick],
        *,
        event_keys: Sequence[bytes] = (),
        feed_keys: Sequence[bytes] = (),
        position: Position | None = None,
        digits: int = 0,
    ) -> None:
        """Apply ticks in order, announce them all, and deliver the newest price of each symbol among them.

        Raises Unavailable; then no tick is applied.
        """
        self.check_open()
        ingested = self._market.ingest(
            ticks, event_keys=event_keys, feed_keys=feed_keys, position=position, digits=digits
        )
        self._announcer.announce(ticks, ingested.seqs)
        self._prices.moved(ingested.moved.values())
        self._staleness.moved(ingested.moved.values(), source)
        metrics.TICKS.labels(source.name).inc(len(ticks))
        if ticks:
            age_ms = self._clock_ms() - min(tick.at_ms for tick in ticks)
            metrics.TICK_AGE_SECONDS.labels(source.name).observe(max(age_ms, 0) / 1000)
        metrics.TICKS_LATE.inc(ingested.late)
        self._journal.check_backlog()

    def offer(self, source: Source, ticks: Sequence[Tick], *, feed_keys: Sequence[bytes] = (), digits: int = 0) -> None:
        """Apply ticks like `ingest`, or skip and count them, for a source that cannot wait."""
        try:
            self.ingest(source, ticks, feed_keys=feed_keys, digits=digits)
        except Unavailable:
            metrics.TICKS_SKIPPED.labels(source.name).inc(len(ticks))

    async def commit(self) -> None:
        """Return once every accepted tick is in the journal. Raises Unavailable."""
        await self._journal.commit()

    async def keep_up(self) -> None:
        """Commit, and write candles if many are pending. Paces a source that can wait. Raises Unavailable."""
        await self._journal.keep_up()

    async def sweep(self) -> None:
        """Mark the prices of silent sources as stale, and resend what failed, until cancelled."""
        while True:
            if self._owns():
                self._prices.became_stale(self._staleness.sweep())
                metrics.SYMBOLS.set(len(self._market.quotes))
                metrics.SYMBOLS_STALE.set(self._staleness.stale_count)
            self._prices.retry()
            self._announcer.resend()
            await until_next(SWEEP_INTERVAL_S)
