"""One channel: its subscribers and the transitions between their states. Pure.

See `subscriber` for the states, `stream` for ordered items and `prices` for a symbol's prices. SUSPENDED, JOINING and
LINGERING sockets are in `waiting`, AHEAD and LIVE sockets in the stream.
"""

from collections.abc import Iterator, Sequence, Set

from gateway.fanout.batch import DropPolicy, Item
from gateway.fanout.flush_schedule import FlushSchedule
from gateway.fanout.lane import Sink
from gateway.fanout.prices import SymbolPrices
from gateway.fanout.resequencer import BACKLOG_MAX
from gateway.fanout.stream import Attention, Evicted, Stream
from gateway.fanout.subscriber import Subscriber, SubscriberState


class Channel:
    """One channel. A method called with a sink that is not on the channel does nothing and returns a false value."""

    __slots__ = ("_attention", "direct", "name", "prices", "stream", "waiting")

    def __init__(self, name: str, schedule: FlushSchedule, attention: Attention) -> None:
        self.name = name
        self._attention = attention
        self.prices = SymbolPrices(schedule)
        self.stream = Stream(name, schedule, attention)
        self.waiting: dict[Sink, Subscriber] = {}
        self.direct: dict[Sink, int] = {}  # implicit subscribers of a direct room: the position after which each began

    @property
    def live(self) -> set[Sink]:
        """Return the LIVE sockets."""
        return self.stream.lane.sinks

    @property
    def is_empty(self) -> bool:
        """Return whether no socket needs the channel."""
        return next(self.sinks(), None) is None

    def sinks(self) -> Iterator[Sink]:
        """Yield every socket in any state on the channel. A socket that resubscribes may occur twice."""
        yield from self.stream.sinks()
        yield from self.waiting
        yield from self.prices.sinks()

    def listeners(self) -> list[Sink]:
        """Return the sockets that have gone live. Those in their first attempt are left out: they may lack access."""
        newcomers = {sink for sink, subscriber in self.waiting.items() if subscriber.position is None}
        return [sink for sink in self.sinks() if sink not in newcomers]

    def position_of(self, sink: Sink) -> int | None:
        """Return the position through which `sink` has received everything; None if it has never listened."""
        subscriber = self.waiting.get(sink)
        return self.stream.position_of(sink) if subscriber is None else subscriber.position

    # Attempts to subscribe ------------------------------------------------------------------------------------------

    def join(self, sink: Sink) -> None:
        """Begin an attempt: buffer for `sink` until it goes live. A live socket of an unordered channel stays live."""
        if (subscriber := self.waiting.get(sink)) is not None:
            subscriber.retry()
        elif sink in self.live and self.stream.last_position is None:  # an unordered channel
            self.waiting[sink] = Subscriber(None)
        else:
            self._begin(sink)

    def _begin(self, sink: Sink) -> Subscriber:
        self.stream.flush()
        subscriber = Subscriber(self.position_of(sink), self.direct.get(sink))
        subscriber.buffered.update(self.stream.early())
        self.remove(sink)
        self.waiting[sink] = subscriber
        return subscriber

    def take_answer_outdated(self, sink: Sink) -> bool:
        """Return whether a check began after `sink`'s query, so that its answer may be outdated, and reset the mark."""
        subscriber = self.waiting.get(sink)
        return subscriber is not None and subscriber.take_overtaken()

    def received_implicitly(self, sink: Sink) -> range:
        """Return the positions of a direct room that a joining socket has received by an implicit subscription."""
        subscriber = self.waiting.get(sink)
        if subscriber is None or subscriber.direct_from is None or subscriber.position is None:
            return range(0)
        return range(subscriber.direct_from + 1, subscriber.position + 1)

    def go_live(
        self, sink: Sink, position: int, greeting: Sequence[bytes], now_s: float, *, replayed: bool = False
    ) -> bool:
        """Write `greeting` (the answer, then the missed items through `position`), then everything after `position`.

        A socket that listened before and is not `replayed` continues at its previous position. If `sink` has left in
        the meantime, write nothing and return False.
        """
        subscriber = self.waiting.get(sink)
        if subscriber is None:
            return False
        self.stream.flush()
        del self.waiting[sink]
        if subscriber.direct_from is not None and not greeting:  # still an implicit subscription
            self.direct[sink] = subscriber.direct_from
        self.stream.replay(sink, greeting)
        self.stream.note_head(position)
        if subscriber.position is not None and not replayed:
            position = min(position, subscriber.position)
        last_position = self.stream.last_position
        if last_position is not None and position > last_position:
            self.stream.mark_ahead({sink: position}, now_s)
        else:
            self._enter_lane(sink, subscriber, position, now_s)
        if subscriber.unordered:
            self.stream.flush()
            self.stream.send(sink, subscriber.unordered)
        return True

    def _enter_lane(self, sink: Sink, subscriber: Subscriber, position: int, now_s: float) -> None:
        """Make `sink` LIVE after `position`, which is not ahead of the stream."""
        stream = self.stream
        last_position = stream.last_position
        missed = None if last_position is None else subscriber.all_between(position, last_position)
        if missed is not None:
            stream.send(sink, missed)
        elif last_position is not None:
            # The stream began later, for another socket: go back, and wait for the items in between to arrive.
            stream.rewind(position, now_s)
        stream.start(position)
        stream.lane.sinks.add(sink)
        if missed is None:
            stream.offer_again(subscriber.buffered, now_s)
        stream.note_gap()

    def go_live_unordered(self, sink: Sink, greeting: Sequence[bytes] = ()) -> bool:
        """Go live on a channel without a common order of items; see `go_live`."""
        if self.waiting.pop(sink, None) is None:
            return False
        self.stream.flush()
        self.stream.send(sink, greeting)
        self.stream.lane.sinks.add(sink)
        return True

    def go_live_prices(self, sink: Sink, max_rate: float, now_s: float) -> Item | None:
        """Go live on a market channel, with at most `max_rate` prices per second. Return the newest price, if any."""
        if self.waiting.pop(sink, None) is None:
            return None
        self.prices.add(sink, max_rate, now_s)
        return self.prices.newest

    def resume(self, sink: Sink, now_s: float) -> bool:
        """End an attempt that failed: a socket that listened before continues. Return False for any other socket."""
        subscriber = self.waiting.get(sink)
        if subscriber is None or subscriber.position is None:
            return False
        if subscriber.check:
            subscriber.suspend(subscriber.check)
            return True
        return self.go_live(sink, subscriber.position, (), now_s)

    def linger(self, sink: Sink, now_s: float) -> None:
        """End an attempt that failed but may be retried: keep buffering until then.

        Otherwise a direct message could be shown before earlier ones that the retry will replay. See `give_up`.
        """
        if (subscriber := self.waiting.get(sink)) is not None:
            subscriber.linger(now_s)
            self._attention.lingering.add(self.name)

    def give_up(self, now_s: float) -> list[Sink]:
        """Return the sockets that did not retry within 10 s; the caller unsubscribes them.

        Sockets with buffered direct messages are closed instead: to deliver these without the missed ones would hide
        the gap.
        """
        leaving: list[Sink] = []
        lingering = [item for item in self.waiting.items() if item[1].state is SubscriberState.LINGERING]
        for sink, subscriber in lingering:
            if subscriber.lingers_until_s > now_s:
                continue
            if subscriber.direct_from is None:
                leaving.append(sink)
            else:
                sink.close_for_resume()
        if not lingering:
            self._attention.lingering.discard(self.name)
        return leaving

    def remove(self, sink: Sink) -> None:
        """Take a socket off the channel."""
        self.waiting.pop(sink, None)
        self.direct.pop(sink, None)
        self.prices.remove(sink)
        self.stream.remove(sink)

    def evict(self, user_id: str, position: int, farewell: bytes) -> None:
        """Evict a user's sockets after the item `position`, and waiting ones at once; see `Attention.evicted`.

        Spare a waiting socket that has received later items: it has rejoined since.
        """
        for sink, subscriber in self.waiting.items():
            if sink.user_id == user_id and (subscriber.position is None or subscriber.position < position):
                self._attention.evicted.append(Evicted(sink, self.name, farewell))
        self.stream.evict(user_id, position, farewell)

    # Checks ---------------------------------------------------------------------------------------------------------

    def suspend(self, check: int) -> None:
        """Suspend every listener until it passes the check or leaves. `check` is greater than every earlier one.

        A socket that is joining for the first time is not suspended, but must query again: see `take_answer_outdated`.
        """
        for sink in list(self.stream.sinks()):
            self.join(sink)
            self.waiting[sink].suspend(check)
        for subscriber in self.waiting.values():
            subscriber.note_check(check)

    def pass_check(self, sink: Sink, check: int, head: int, now_s: float) -> None:
        """Let `sink` continue at its position, unless a later check has begun. `head` is the channel's last rev."""
        subscriber = self.waiting.get(sink)
        if subscriber is None or subscriber.check != check:
            return
        subscriber.check = 0
        if subscriber.state is SubscriberState.SUSPENDED:
            self.go_live(sink, max(head, subscriber.position or 0), (), now_s)

    # Implicit subscriptions to direct rooms -------------------------------------------------------------------------

    def go_live_implicitly(self, sinks: Set[Sink], position: int, now_s: float) -> None:
        """Make new sockets LIVE from the direct message `position` on."""
        self.stream.start(position - 1)
        self.stream.flush()
        if sinks and position <= (self.stream.last_position or 0):
            self.stream.rewind(position - 1, now_s)
        self.stream.lane.sinks |= sinks
        self.direct.update(dict.fromkeys(sinks, self.stream.last_position or 0))

    def catch_up_implicitly(self, sink: Sink, after: int, now_s: float) -> None:
        """Make a new socket LIVE after position `after`. The direct messages that follow are a gap to be filled."""
        self._begin(sink).direct_from = after
        self.go_live(sink, after, (), now_s)

    # Items ----------------------------------------------------------------------------------------------------------

    def deliver_ordered(self, position: int, data: bytes, now_s: float) -> None:
        """Deliver an ordered item. HOT."""
        for subscriber in self.waiting.values():
            if len(subscriber.buffered) < BACKLOG_MAX:
                subscriber.buffered[position] = data
        self.stream.offer(position, data, now_s)

    def deliver_before(self, position: int, frames: Sequence[bytes], now_s: float) -> None:
        """Deliver frames that belong to the next ordered item, unless it has been passed on before."""
        if self.stream.last_position == position - 1:
            for data in frames:
                self.stream.put(Item(DropPolicy.NEVER, "", data), now_s)

    def deliver_unordered(self, data: bytes, now_s: float, *, opened_before_ms: int = 0) -> None:
        """Deliver a lossless item without a place in the order; with a time, only to sockets opened before it."""
        if opened_before_ms:
            for sink in list(self.live):
                if sink.opened_ms < opened_before_ms:
                    self.stream.send(sink, [data])
            return
        for subscriber in self.waiting.values():
            subscriber.keep_unordered(data)
        self.stream.put(Item(DropPolicy.NEVER, "", data), now_s)
