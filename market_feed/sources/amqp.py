"""Ticks from internal services: `market.tick` events of `realtime.events`, with one tick or an array of them."""

from collections.abc import Callable
from typing import NamedTuple

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


class _Received(NamedTuple):
    """An event, its line, and its key."""

    line: Line
    key: bytes
    ticks: list[Tick]
    problems: list[str]


class TickEvents:
    """Handles the lines of the queue `market.ticks`."""

    def __init__(self, sink: TickSink, stale_s: float, clock_ms: Callable[[], int]) -> None:
        self._sink = sink
        self._clock_ms = clock_ms
        self._source = Source(NAME, stale_s)

    async def handle(self, lines: list[Line]) -> None:
        """Apply a batch, and return once it is in the journal: the handler of `Bus.consume`.

        An event with some bad ticks is dead-lettered with their numbers, again if it is redelivered; its good ticks are
        applied once. A duplicate event has no effect.
        """
        self._sink.check_open()
        received_ms = self._clock_ms()
        events = [event for line in lines if (event := _read(line, received_ms)) is not None]
        await self._sink.look_up([event.key for event in events])
        # No `await` from here to `ingest`: another batch could process the same events meanwhile.
        self._sink.check_open()
        ticks: list[Tick] = []
        keys: dict[bytes, None] = {}
        for event in events:
            if event.key not in keys and self._sink.is_new(event.key):
                ticks.extend(self._accept(event))
                keys[event.key] = None
            elif event.line.redelivered:
                self._accept(event)  # its first delivery may have ended before its bad ticks were dead-lettered
            else:
                metrics.EVENTS_REPEATED.inc()
        if keys:
            self._sink.ingest(self._source, ticks, event_keys=list(keys))
        await self._sink.commit()

    def _accept(self, event: _Received) -> list[Tick]:
        """Return the good ticks of an event; reject its line if it has bad ones."""
        good = [tick for tick in event.ticks if self._sink.has_room_for(tick.symbol)]
        problems = list(event.problems)
        if len(good) < len(event.ticks):
            problems += [
                f"symbol: {tick.symbol!r} is beyond the symbol limit"
                for tick in event.ticks
                if not self._sink.has_room_for(tick.symbol)
            ]
        if problems:
            metrics.TICKS_BAD.labels(NAME).inc(len(problems))
            event.line.reject(_shorten(problems))
        return good


def _read(line: Line, received_ms: int) -> _Received | None:
    """Return the event of a line, or None and reject the line."""
    try:
        event = read_event(line.body, received_ms)
    except Malformed as error:
        metrics.TICKS_BAD.labels(NAME).inc()
        line.reject(str(error))
        return None
    return _Received(line, short_event_key(event.source, event.id), event.ticks, event.problems)


def _shorten(problems: list[str]) -> str:
    more = len(problems) - PROBLEMS_SHOWN
    return "; ".join(problems[:PROBLEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
