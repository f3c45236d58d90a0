"""Ticks from internal services: `market.tick` events of `realtime.events`, with one tick or an array of them."""

from collections.abc import Callable

from market_feed import metrics
from market_feed.market import Source
from market_feed.quotes import Tick
from market_feed.sources.parsing import read_event
from market_feed.sources.tick_sink import TickSink
from shared.bus.consumer import Line
from shared.bus.events import short_event_key
from shared.errors import Malformed

NAME = "amqp"
PROBLEMS_SHOWN = 5


class TickEvents:
    """Handles the lines of the queue `market.ticks`."""

    def __init__(self, sink: TickSink, stale_s: float, clock_ms: Callable[[], int]) -> None:
        self._sink = sink
        self._clock_ms = clock_ms
        self._source = Source(NAME, stale_s)

    async def handle(self, lines: list[Line]) -> None:
        """Apply a batch, and return once it is in the journal: the handler of `Bus.consume`.

        An event with some bad ticks goes to realtime.dead once, with their numbers; its good ticks count. A duplicate
        event does not count again.
        """
        self._sink.check_open()
        received_ms = self._clock_ms()
        ticks: list[Tick] = []
        keys: list[bytes] = []
        for line in lines:
            self._read(line, received_ms, ticks, keys)
        if keys:
            self._sink.take(self._source, ticks, event_keys=keys)
        await self._sink.commit()

    def _read(self, line: Line, received_ms: int, ticks: list[Tick], keys: list[bytes]) -> None:
        try:
            event = read_event(line.body, received_ms)
        except Malformed as error:
            metrics.TICKS_BAD.labels(NAME).inc()
            line.reject(str(error))
            return
        problems = event.problems
        good = event.ticks
        if not all(self._sink.has_room_for(tick.symbol) for tick in good):
            problems.extend(
                f"symbol: {t.symbol!r} is beyond the symbol limit"
                for t in good
                if not self._sink.has_room_for(t.symbol)
            )
            good = [tick for tick in good if self._sink.has_room_for(tick.symbol)]
        if problems:
            metrics.TICKS_BAD.labels(NAME).inc(len(problems))
            line.reject(_shorten(problems))
        key = short_event_key(event.source, event.id)
        if self._sink.is_new(key):
            ticks.extend(good)
            keys.append(key)
        elif not line.redelivered:
            metrics.EVENTS_REPEATED.inc()


def _shorten(problems: list[str]) -> str:
    more = len(problems) - PROBLEMS_SHOWN
    return "; ".join(problems[:PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
