"""Ticks that internal services publish: `market.tick` events from `realtime.events`, one tick or an array of them."""

from market_feed import metrics
from market_feed.dedup import event_key
from market_feed.feed import Feed, Source
from market_feed.quotes import Tick
from market_feed.sources.parsing import read_event
from shared.bus.consumer import Line
from shared.errors import Malformed
from shared.times import now_ms

NAME = "amqp"
PROBLEMS_SHOWN = 5


class TickEvents:
    """Takes the lines of the queue `market.ticks` in."""

    def __init__(self, feed: Feed, stale_s: float) -> None:
        self._feed = feed
        self._source = Source(NAME, stale_s)

    async def handle(self, lines: list[Line]) -> None:
        """Count a batch, and return once it is in the journal. The handler of `Bus.consume`.

        An event whose ticks are bad in part goes to realtime.dead once, with their numbers; its other ticks count. An
        event that was seen before counts no more.
        """
        self._feed.check_open()
        received_ms = now_ms()
        ticks: list[Tick] = []
        keys: list[bytes] = []
        for line in lines:
            self._read(line, received_ms, ticks, keys)
        if keys:
            self._feed.take(self._source, ticks, event_keys=keys)
        await self._feed.keeper.commit()

    def _read(self, line: Line, received_ms: int, ticks: list[Tick], keys: list[bytes]) -> None:
        try:
            event = read_event(line.body, received_ms)
        except Malformed as error:
            metrics.TICKS_BAD.labels(NAME).inc()
            line.reject(str(error))
            return
        market = self._feed.market
        problems = event.problems
        good = event.ticks
        if not all(market.has_room_for(tick.symbol) for tick in good):
            problems.extend(f"symbol: {t.symbol!r} is one too many" for t in good if not market.has_room_for(t.symbol))
            good = [tick for tick in good if market.has_room_for(tick.symbol)]
        if problems:
            metrics.TICKS_BAD.labels(NAME).inc(len(problems))
            line.reject(_shorten(problems))
        key = event_key(event.source, event.id)
        if market.seen.add(key):
            ticks.extend(good)
            keys.append(key)
        elif not line.redelivered:
            metrics.EVENTS_REPEATED.inc()


def _shorten(problems: list[str]) -> str:
    more = len(problems) - PROBLEMS_SHOWN
    return "; ".join(problems[:PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
