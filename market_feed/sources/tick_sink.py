"""The interface between sources and the feed: a source depends on nothing else of the service."""

from collections.abc import Collection, Sequence
from typing import Protocol

from market_feed.market import Position, Source
from market_feed.quotes import Tick


class TickSink(Protocol):
    """Receives ticks. The implementation is `market_feed.feed.Feed`."""

    def check_open(self) -> None:
        """Raise Unavailable if no tick can be accepted now."""

    def has_room_for(self, symbol: str) -> bool:
        """Return whether the symbol is known or may be added."""

    async def look_up(self, event_keys: Collection[bytes]) -> None:
        """Look up which of these events were processed in the last 7 days. `is_new` is valid until the next `await`.

        Raises Unavailable.
        """

    def is_new(self, event_key: bytes) -> bool:
        """Return whether no tick of the event was taken so far."""

    def price_of(self, symbol: str) -> float | None:
        """Return the symbol's latest price, or None for an unknown symbol."""

    def position_of(self, source: str) -> int:
        """Return the number of the last tick read from a source that can be re-read; 0 at its beginning."""

    def is_priced_by_another(self, source: Source, symbol: str) -> bool:
        """Return whether another source sent the symbol's last price, and it is not stale."""

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
        """Apply ticks in order. Raises Unavailable; then no tick is applied.

        `event_keys` are remembered for 7 days; `feed_keys`, the ids of an upstream feed's ticks, only until newer ones
        displace them.
        """

    def offer(self, source: Source, ticks: Sequence[Tick], *, feed_keys: Sequence[bytes] = (), digits: int = 0) -> None:
        """Apply ticks like `ingest`, or skip and count them, for a source that cannot wait."""

    async def commit(self) -> None:
        """Return once every accepted tick is in the journal. Raises Unavailable."""

    async def keep_up(self) -> None:
        """Commit, and write candles if many are pending. Paces a source that can wait. Raises Unavailable."""
