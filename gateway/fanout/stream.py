"""The items of one channel, in order, on their way to its LIVE and AHEAD sockets. Pure.

The lane's sinks are LIVE. An AHEAD socket has received more than the stream has passed on: it went live
with an answer that was ahead, or the stream was rewound for another socket. It rejoins the lane when the stream reaches
its position. See `subscriber` for all states.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from gateway.fanout.batch import Batch, DropPolicy, Item
from gateway.fanout.flush_schedule import FlushSchedule
from gateway.fanout.lane import Lane, Sink, replay, send
from gateway.fanout.resequencer import Gap, Resequencer

OVERDUE_S = 1.0


class Evicted(NamedTuple):
    """A socket that no longer receives a channel's items, and the frame that reports this; empty for no report."""

    sink: Sink
    channel: str
    farewell: bytes


class Attention:
    """Channels with work for later.

    `gaps` names those with a gap to fill; `ahead` and `lingering` name those with sockets in these states, which end
    after some time. `evicted` holds the sockets that streams have evicted, which the caller unsubscribes.
    """

    __slots__ = ("ahead", "evicted", "gaps", "lingering")

    def __init__(self) -> None:
        self.gaps: set[str] = set()
        self.evicted: list[Evicted] = []
        self.ahead: set[str] = set()
        self.lingering: set[str] = set()


class Stream:
    """A resequencer and the lane that it feeds."""

    __slots__ = ("_ahead_since_s", "_attention", "_evictions", "_name", "_order", "_schedule", "ahead", "lane")

    def __init__(self, name: str, schedule: FlushSchedule, attention: Attention) -> None:
        self.lane = Lane()
        self.ahead: dict[Sink, int] = {}  # by AHEAD socket: its position
        self._name = name
        self._schedule = schedule
        self._attention = attention
        self._order = Resequencer()
        self._ahead_since_s = 0.0
        self._evictions: dict[int, dict[str, bytes]] | None = None  # by position and user; see `evict`

    @property
    def last_position(self) -> int | None:
        """Return the last position passed on; None without listeners."""
        return self._order.last_position

    def sinks(self) -> Iterator[Sink]:
        """Yield every LIVE and AHEAD socket."""
        yield from self.lane.sinks
        yield from self.ahead

    def position_of(self, sink: Sink) -> int | None:
        """Return the position through which a LIVE or AHEAD socket has received everything."""
        return self._order.last_position if sink in self.lane.sinks else self.ahead.get(sink)

    def early(self) -> dict[int, bytes]:
        """Return the items that arrived before missing ones, by position."""
        return self._order.early()

    def missing(self) -> Gap | None:
        """Return the gap to be filled, if there is one."""
        return self._order.missing(self._name)

    # Items ----------------------------------------------------------------------------------------------------------

    def offer(self, position: int, data: bytes, now_s: float) -> None:
        """Accept an item, and put the items that are now due on the lane. HOT."""
        due = self._order.offer(position, data)
        if due:
            self._pass_on(due, now_s)
        elif self._order.head_position > (self._order.last_position or 0):
            self.note_gap()

    def offer_again(self, items: Mapping[int, bytes], now_s: float) -> None:
        """Accept items that were buffered for one socket; drop those already passed on."""
        for position, data in sorted(items.items()):
            self._pass_on(self._order.offer(position, data), now_s)

    def give_up(self, gap: Gap, now_s: float) -> None:
        """Give up the items of a gap that are still missing.

        If the stream was rewound while the gap was being filled, earlier items are missing now: these come first.
        """
        last_position = self._order.last_position
        if last_position is not None and last_position >= gap.after:
            self._pass_on(self._order.skip_to(gap.through), now_s)
        self.note_gap()

    def put(self, item: Item, now_s: float) -> None:
        """Put an item on the lane. HOT."""
        lane = self.lane
        lane.items.append(item)
        if not lane.due:
            self._schedule.add(lane, now_s)

    def deliver_transient(self, data: bytes, without: str, now_s: float) -> None:
        """Deliver a transient item to all LIVE sockets except those of the user or session `without`."""
        item = Item(DropPolicy.SHED, "", data)
        if not without:
            self.put(item, now_s)
            return
        self.flush()
        batch = Batch([item])
        for sink in self.lane.sinks:
            if without not in (sink.user_id, sink.session_id):
                sink.write(batch)
                self._schedule.written.add(1, 1, len(data))

    def send(self, sink: Sink, frames: Sequence[bytes]) -> None:
        """Write complete frames to one socket, lossless and in order."""
        self._write(send, sink, frames)

    def replay(self, sink: Sink, frames: Sequence[bytes]) -> None:
        """Write an answer and the items that a client missed to its socket; see `lane.replay`."""
        self._write(replay, sink, frames)

    def _write(self, write: Callable[[Sink, Sequence[bytes]], None], sink: Sink, frames: Sequence[bytes]) -> None:
        shown = [data for data in frames if data]
        if shown:
            write(sink, shown)
            self._schedule.written.add(1, len(shown), sum(map(len, shown)))

    def flush(self) -> None:
        """Write the buffered items now, before the lane's sockets change."""
        self._schedule.flush_early(self.lane)

    def _pass_on(self, due: Iterable[tuple[int, bytes]], now_s: float) -> None:
        for position, data in due:
            if self.ahead:
                self._rejoin_caught_up(position - 1, now_s)
            if data:
                self.put(Item(DropPolicy.NEVER, "", data), now_s)
            if self._evictions and position in self._evictions:
                self._evict_at(self._evictions.pop(position))
        if self.ahead and self._order.last_position is not None:
            self._rejoin_caught_up(self._order.last_position, now_s)

    def _rejoin_caught_up(self, position: int, now_s: float) -> None:
        """Make the AHEAD sockets that have received everything through `position` LIVE."""
        arrived = [sink for sink, reached in self.ahead.items() if reached <= position]
        if arrived:
            self.lane.flush(now_s, self._schedule.written)  # these sockets have received the items in the lane
            for sink in arrived:
                del self.ahead[sink]
                self.lane.sinks.add(sink)

    # Positions ------------------------------------------------------------------------------------------------------

    def start(self, position: int) -> None:
        """Pass on the items after `position` from now on, unless the stream has started."""
        if self._order.last_position is None:
            self._order.start(position)

    def rewind(self, position: int, now_s: float) -> None:
        """Go back to `position` for a new socket. The others are AHEAD until the stream catches up with them."""
        if (last_position := self._order.last_position) is not None:
            self.mark_ahead(dict.fromkeys(self.lane.sinks, last_position), now_s)
            self.lane.sinks.clear()
        self._order.rewind(position)

    def mark_ahead(self, positions: dict[Sink, int], now_s: float) -> None:
        """Make sockets AHEAD, at these positions beyond the last one passed on."""
        if not self.ahead:
            self._ahead_since_s = now_s
        self.ahead.update(positions)
        self._attention.ahead.add(self._name)

    def remove(self, sink: Sink) -> None:
        """Forget a LIVE or AHEAD socket. The stream stops with the last one."""
        self.lane.sinks.discard(sink)
        self.ahead.pop(sink, None)
        if not self.lane.sinks and not self.ahead:
            self._order.stop()
            self._evictions = None

    # Evictions ------------------------------------------------------------------------------------------------------

    def evict(self, user_id: str, position: int, farewell: bytes) -> None:
        """Evict a user's sockets after the item `position`, which may not have arrived yet.

        Ignore an eviction before the last position passed on: it is a repeat, and the user may have rejoined. AHEAD
        sockets that have received that position already are spared for the same reason. Bound: evictions are kept for
        at most one position per entry of a gap.
        """
        last_position = self._order.last_position
        if last_position is None or position < last_position:
            return
        if position == last_position:
            self._evict_at({user_id: farewell})
            return
        if self._evictions is None:
            self._evictions = {}
        self._evictions.setdefault(position, {})[user_id] = farewell
        self.note_head_and_gap(position)

    def _evict_at(self, farewells: Mapping[str, bytes]) -> None:
        """Stop delivering to the LIVE sockets of these users; `Attention.evicted` names them."""
        self.flush()
        evicted = [sink for sink in self.lane.sinks if sink.user_id in farewells]
        self.lane.sinks.difference_update(evicted)
        self._attention.evicted += [Evicted(sink, self._name, farewells[sink.user_id]) for sink in evicted]

    # Gaps -----------------------------------------------------------------------------------------------------------

    def note_head(self, position: int) -> None:
        """Record the channel's newest position, without requesting that a gap be filled."""
        self._order.note_head(position)

    def note_head_and_gap(self, position: int) -> None:
        """Record the channel's newest position, and request earlier items that have not arrived."""
        self._order.note_head(position)
        self.note_gap()

    def note_gap(self) -> None:
        """Request that the channel's gap be filled, if there is one."""
        if self._order.missing(self._name) is not None:
            self._attention.gaps.add(self._name)

    def note_overdue(self, now_s: float) -> None:
        """Note a gap if AHEAD sockets have waited for more than a second."""
        if not self.ahead:
            self._attention.ahead.discard(self._name)
        elif now_s - self._ahead_since_s > OVERDUE_S:
            self.note_gap()
