"""The hub: all channels of one gateway process, and the entry point of every delivery. Pure; the clock is an argument.

The path of a delivery: `deliver` passes it to its channel, which orders it and puts it on a lane; `schedule.flush`
writes each due lane as one buffer, the same bytes to every socket. An idle lane is flushed in the next iteration of the
event loop. Under load a lane gathers items for about twice the duration of the last flush of all lanes, 5 to 30 ms, so
the cost per socket does not grow with the rate. A market channel has one lane for each rate that its subscribers chose.

The path of a subscriber: `join` before the query to the worker, so that the channel buffers for the socket; then
`Channel.go_live` with the worker's answer. Nothing is lost in between, and nothing is repeated afterwards. A check of
the listeners' access works in the same way: `Channel.suspend`, the query, then `Channel.pass_check` or `leave`. See
`subscriber` for the states.

Channels by name, and the LIVE sockets of each, are plain dicts and sets of strings and sockets: a delivery costs one
lookup, a flush one call per socket. Joining and leaving is O(1), except that leaving a market channel visits its lanes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import assert_never

from gateway.fanout.channel import Channel
from gateway.fanout.direct_messages import DirectMessages
from gateway.fanout.flush_schedule import FlushSchedule
from gateway.fanout.lane import Sink
from gateway.fanout.registry import Registry
from gateway.fanout.resequencer import Gap
from gateway.fanout.stream import Attention, Evicted
from gateway.fanout.wire import text_frame, text_frame_or_empty
from shared.bus.delivery import Delivery, DeliveryKind

SEEN_KEYS_MAX = 20_000


class Hub:
    """All channels. `gaps` names the channels with a gap to be filled; the caller removes the names."""

    def __init__(self, schedule: FlushSchedule | None = None) -> None:
        self.schedule = FlushSchedule() if schedule is None else schedule
        self._attention = Attention()
        self._registry = Registry(self.schedule, self._attention)
        self._seen_keys: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.channels = self._registry.channels
        self.gaps = self._attention.gaps
        self.directs = DirectMessages(self._registry)

    # Sockets --------------------------------------------------------------------------------------------------------

    def join(self, sink: Sink, name: str) -> Channel:
        """Begin an attempt to subscribe, and return the channel, whose methods complete or abandon the attempt."""
        channel = self._registry.add(sink, name)
        channel.join(sink)
        return channel

    def leave(self, sink: Sink, name: str) -> bool:
        """Take a socket off a channel. Return whether it was the last one and the channel is deleted."""
        channel = self.channels.get(name)
        if channel is None:
            return False
        self.directs.note_left(sink, channel)
        return self._registry.remove(sink, channel)

    def drop(self, sink: Sink) -> list[str]:
        """Forget a closed socket. Return the names of the channels deleted with it."""
        deleted = [name for name in self._registry.names_of(sink) if self.leave(sink, name)]
        self._registry.forget(sink)
        self.directs.forget(sink)
        return deleted

    def sinks_of(self, name: str) -> list[Sink]:
        """Return every socket on a channel, in any state."""
        channel = self.channels.get(name)
        return [] if channel is None else list(channel.sinks())

    def is_on(self, sink: Sink, name: str) -> bool:
        """Return whether a socket is on a channel, in any state."""
        return self._registry.has(sink, name)

    def evict(self, name: str, user_id: str, position: int, farewell: bytes) -> None:
        """Evict a user's sockets from a channel after the item `position`; see `take_evicted`."""
        if (channel := self.channels.get(name)) is not None:
            channel.evict(user_id, position, farewell)

    def take_evicted(self) -> list[Evicted]:
        """Return the sockets evicted since the last call, which have yet to leave their channels. HOT."""
        if not self._attention.evicted:
            return []
        evicted, self._attention.evicted = self._attention.evicted, []
        return evicted

    # Deliveries -----------------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery, now_s: float) -> None:
        """Deliver one item from the bus; drop it if its channel has no sockets. HOT."""
        channel = self.channels.get(delivery.channel)
        if channel is None:
            return
        match delivery.kind:
            case DeliveryKind.ORDERED:
                channel.deliver_ordered(delivery.position, text_frame_or_empty(delivery.frame), now_s)
            case DeliveryKind.DIRECT:
                self.directs.deliver(channel, delivery, now_s)
            case DeliveryKind.UNORDERED:
                if not self.is_repeat(delivery.channel, delivery.key):
                    channel.deliver_unordered(text_frame(delivery.frame), now_s, opened_before_ms=delivery.position)
            case DeliveryKind.LATEST:
                channel.prices.deliver(delivery, now_s)
            case DeliveryKind.TRANSIENT:
                channel.stream.deliver_transient(text_frame(delivery.frame), delivery.key, now_s)
            case DeliveryKind.HEAD:
                channel.stream.note_head_and_gap(delivery.position)
            case DeliveryKind.DIRECT_HEAD:
                self.directs.deliver_head(channel, delivery)
            case DeliveryKind.CONTROL | DeliveryKind.REPLY | DeliveryKind.ANSWERED | DeliveryKind.TRACE:
                raise ValueError("the relay handles control deliveries, answers and traces")
            case _:
                assert_never(delivery.kind)

    def is_repeat(self, channel: str, key: str) -> bool:
        """Return whether an item with this key was delivered on the channel before, and remember the key.

        Bound: the last 20,000 keys. An empty key is never a repeat.
        """
        if not key:
            return False
        seen = (channel, key)
        if seen in self._seen_keys:
            return True
        self._seen_keys[seen] = None
        if len(self._seen_keys) > SEEN_KEYS_MAX:
            self._seen_keys.popitem(last=False)
        return False

    def forget_items(self) -> None:
        """Forget which items were delivered: after a restore of the database, others may have their keys."""
        self._seen_keys.clear()
        self.forget_prices()

    # Losses ---------------------------------------------------------------------------------------------------------

    def fill(self, gap: Gap, first: int, items: Sequence[Sequence[bytes]], now_s: float) -> None:
        """Deliver the items that fill a gap: `items` holds the frames of each, from position `first` on.

        An item without frames only advances the position. Of several frames, the last is delivered at the item's
        position, and the others just before it. Then give up the positions of the gap that are still missing, because
        no store has them.
        """
        channel = self.channels.get(gap.channel)
        if channel is None:
            return
        for position, frames in enumerate(items, first):
            *before, frame = frames or (b"",)
            new = [one for index, one in enumerate(before) if not self.is_repeat(gap.channel, f"{position}/{index}")]
            channel.deliver_before(position, [text_frame(one) for one in new], now_s)
            channel.deliver_ordered(position, text_frame_or_empty(frame), now_s)
        channel.stream.give_up(gap, now_s)

    def note_head_and_gap(self, name: str, position: int) -> None:
        """Record that a channel has an item `position`. Earlier items that have not arrived are a gap."""
        if (channel := self.channels.get(name)) is not None:
            channel.stream.note_head_and_gap(position)

    def note_gap(self, name: str) -> None:
        """Request that a channel's gap be filled, if there is one."""
        if (channel := self.channels.get(name)) is not None:
            channel.stream.note_gap()

    def suspend(self, name: str, check: int) -> None:
        """Suspend every listener of a channel; see `Channel.suspend`."""
        if (channel := self.channels.get(name)) is not None:
            channel.suspend(check)

    def forget_prices(self) -> None:
        """Forget the newest prices: later ones may have been lost."""
        for channel in self.channels.values():
            channel.prices.forget()

    # Time -----------------------------------------------------------------------------------------------------------

    def note_overdue(self, now_s: float) -> None:
        """Note a gap for items that AHEAD sockets have awaited for more than a second."""
        for name in list(self._attention.ahead):
            channel = self.channels.get(name)
            if channel is None:
                self._attention.ahead.discard(name)
            else:
                channel.stream.note_overdue(now_s)

    def give_up(self, now_s: float) -> list[tuple[Sink, str]]:
        """Return the LINGERING sockets that did not retry in time, with their channels; see `Channel.give_up`."""
        leaving: list[tuple[Sink, str]] = []
        for name in list(self._attention.lingering):
            channel = self.channels.get(name)
            if channel is None:
                self._attention.lingering.discard(name)
            else:
                leaving += [(sink, name) for sink in channel.give_up(now_s)]
        for sink, name in leaving:
            self.directs.note_given_up(sink, name)
        return leaving
