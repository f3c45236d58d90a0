"""The newest price of one symbol, at the rate that each subscriber chose. Pure."""

import math
from collections.abc import Iterator

from gateway.fanout.batch import DropPolicy, Item
from gateway.fanout.flush_schedule import FlushSchedule
from gateway.fanout.frame_peek import marks_staleness
from gateway.fanout.lane import Lane, Sink
from gateway.fanout.wire import text_frame
from shared.bus.delivery import Delivery

PRICE_GRID_S = 1.0 / 50  # all symbols are written together, so a socket gets one write for all of its symbols
RATE_MAX = 50


class PriceLane(Lane):
    """A conflating lane: it buffers the newest price, and the newest staleness mark before it."""

    __slots__ = ("interval_s",)

    is_sampled = False

    def __init__(self, interval_s: float) -> None:
        super().__init__()
        self.interval_s = interval_s

    def due_at_s(self, now_s: float, gather_s: float) -> float:
        """Return the time to flush the lane: at its rate, on a time grid common to all symbols."""
        due_s = self.flushed_at_s + self.interval_s
        return now_s if due_s <= now_s else math.ceil(due_s / PRICE_GRID_S) * PRICE_GRID_S

    def keep(self, item: Item) -> None:
        """Replace the buffered price. A staleness mark is sent only once, so an ordinary price does not replace it."""
        marks = [] if item.marks_staleness else [waiting for waiting in self.items if waiting.marks_staleness]
        self.items = [*marks, item]


class SymbolPrices:
    """The subscribers of one symbol, in at most 50 lanes, one for each rate."""

    __slots__ = ("_schedule", "lanes", "newest", "newest_position")

    def __init__(self, schedule: FlushSchedule) -> None:
        self._schedule = schedule
        self.lanes: dict[float, PriceLane] = {}
        self.newest: Item | None = None
        self.newest_position = 0

    def add(self, sink: Sink, max_rate: float, now_s: float) -> None:
        """Send `sink` at most `max_rate` prices per second. Rates are rounded to whole numbers from 1 to 50."""
        interval_s = 1.0 / min(max(round(max_rate), 1), RATE_MAX)
        lane = self.lanes.get(interval_s)
        if lane is None:
            lane = self.lanes[interval_s] = PriceLane(interval_s)
            lane.flushed_at_s = 0.0 if self.newest is None else now_s  # the newest price counts towards the rate
        lane.sinks.add(sink)

    def remove(self, sink: Sink) -> None:
        """Stop sending prices to `sink`."""
        for interval_s, lane in list(self.lanes.items()):
            lane.sinks.discard(sink)
            if not lane.sinks:
                del self.lanes[interval_s]

    def sinks(self) -> Iterator[Sink]:
        """Yield every subscriber."""
        for lane in self.lanes.values():
            yield from lane.sinks

    def deliver(self, delivery: Delivery, now_s: float) -> None:
        """Deliver a price; drop one that is not newer than the newest. HOT."""
        if delivery.position <= self.newest_position and self.newest is not None:
            return
        item = Item(DropPolicy.CONFLATE, delivery.channel, text_frame(delivery.frame), marks_staleness(delivery.frame))
        self.newest, self.newest_position = item, delivery.position
        for lane in self.lanes.values():
            lane.keep(item)
            if not lane.due:
                self._schedule.add(lane, now_s)

    def forget(self) -> None:
        """Forget the newest price: later ones may have been lost."""
        self.newest = None
