"""The seam between sources and the feed. A source knows no more of the service than this."""

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from market_feed.market import Position, Source
from market_feed.quotes import Tick


class TickSink(Protocol):
    """Takes ticks. `market_feed.feed.Feed` is the implementation."""

    def check_open(self) -> None:
        """Raise Unavailable when no tick can be taken now."""

    def has_room_for(self, symbol: str) -> bool:
        """Return whether the symbol is known or may be added."""

    async def look_up(self, event_keys: Collection[bytes]) -> None:
        """Find out which of the events counted in the last 7 days: `is_new` is right for them until the next wait.

        Raises Unavailable.
        """

    def is_new(self, event_key: bytes) -> bool:
        """Note an event as seen, and return whether it was not seen before."""

    def price_of(self, symbol: str) -> float | None:
        """Return the symbol's latest price, or None for an unknown symbol."""

    def position_of(self, source: str) -> int:
        """Return the number of the last tick taken from a source that can be read again; 0 at its beginning."""

    def is_led_by_another(self, source: Source, symbol: str) -> bool:
        """Return whether another source moved the symbol last and its price is not stale."""

    def take(
        self,
        source: Source,
        ticks: Sequence[Tick],
        *,
        event_keys: Sequence[bytes] = (),
        feed_keys: Iterable[bytes] = (),
        position: Position | None = None,
        digits: int = 0,
    ) -> None:
        """Apply ticks in order. Raises Unavailable; then none of them is applied.

        `event_keys` count as seen for 7 days; `feed_keys`, the ids of an upstream feed's ticks, only for a while.
        """

    def offer(self, source: Source, ticks: Sequence[Tick], *, feed_keys: Iterable[bytes] = (), digits: int = 0) -> None:
        """Apply ticks like `take`, or skip and count them, for a source that cannot wait."""

    async def commit(self) -> None:
        """Return once everything taken is in the journal. Raises Unavailable."""

    async def keep_up(self) -> None:
        """Commit, and write candles when many wait: the pace of a source that can wait. Raises Unavailable."""
