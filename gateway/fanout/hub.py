"""Who listens to what, and what they get: channels, their order, and the gathering of writes. Pure; time comes in.

The way of a delivery: `deliver` puts it in its channel's order and on the channel's lanes; `flush` writes each lane
that is due as one buffer, the same bytes to every socket. A lane flushes in the next loop turn after an idle moment;
under load it gathers for 5 ms, and longer where writing to its sockets takes longer (`pace`), so what a socket costs
does not grow with the rate. A market channel has one lane for each rate that its subscribers asked for: it carries
only the newest price, at that rate, to all of them at once; the lanes of all symbols flush at the same moments.

The way of a subscriber: `join` (before the worker is asked: what is delivered meanwhile waits for it), then `admit`
with the worker's answer. Between the two nothing is lost, and behind the answer nothing is repeated. Whether those who
listen still may is checked in the same way: `hold`, ask, then `checked` or `leave`.
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from gateway.fanout.batch import Batch, Item
from gateway.fanout.channel import Channel, Joiner, Lane, Sink, Written
from gateway.fanout.resequencer import BACKLOG_MAX, Gap
from gateway.fanout.wire import text_frame
from shared.bus.delivery import Delivery, DeliveryClass, room_channel, user_channel
from shared.commands.chat import DirectPost

GATHER_MIN_S = 0.005
GATHER_MAX_S = 0.030
GATHER_TURNS = 2.0  # how many times what a flush takes the next one waits: half of the time is left for all else
PRICE_GRID_S = 1.0 / 50  # prices of all symbols leave together, so that a socket gets one write for all of its symbols
SEEN_KEYS_MAX = 20_000
OVERDUE_S = 1.0
LINGER_S = 10.0
STALE_MARK = "!stale"  # in the key of a price whose frame tells that it turned stale or moves again
RATE_MAX = 50
ASIDE_MAX_BYTES = 16 * 1024 * 1024
LEFT_MAX = 64


class Hub:
    """All channels of one gateway process. `gaps` is what the relay has to fetch; it empties it."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.gaps: set[str] = set()
        self.written = Written()
        self.gather_s = GATHER_MIN_S
        self._due: list[tuple[float, int, Lane]] = []
        self._numbers = iter(range(2**62))
        self._seen_keys: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._of: dict[Sink, dict[str, None]] = {}  # dicts as sets: a small set takes three times the memory
        self._late: set[str] = set()  # channels that are late for somebody
        self._lingering: set[str] = set()  # channels that somebody is to ask for again
        self._directs_aside: list[Delivery] | None = None  # while those that may be missing are asked for
        self._aside_bytes = 0
        self._left: dict[Sink, dict[str, int]] = {}  # up to where sockets had what they listen to no more

    # Subscribers ----------------------------------------------------------------------------------------------------

    def join(self, sink: Sink, name: str) -> None:
        """Begin to listen: from now on nothing is lost to `sink`, and nothing written to it before it is admitted."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
        self._of.setdefault(sink, {})[name] = None
        if (joiner := channel.joining.get(sink)) is not None:
            joiner.asks = True
            joiner.lingers_until_s = None
            return
        if sink in channel.lane.sinks and channel.stream.last_seq is None:  # no order: nothing to take up again
            channel.joining[sink] = Joiner(None)
            return
        self._flush_channel(channel)
        joiner = Joiner(channel.position(sink), channel.direct.get(sink))
        joiner.waiting.update(channel.stream.early())
        self._remove(channel, sink)
        channel.joining[sink] = joiner

    def admit(
        self, sink: Sink, name: str, seq: int, greeting: Sequence[bytes], now_s: float, *, replayed: bool = False
    ) -> bool:
        """Write `greeting` (frames: the answer, then what was missed up to `seq`), then everything behind `seq`.

        A socket that listened before and is not `replayed` goes on from where it stood. False, and nothing written,
        if `sink` has left in the meantime.
        """
        channel = self.channels.get(name)
        if channel is None or sink not in channel.joining:
            return False
        self._flush_channel(channel)
        joiner = channel.joining.pop(sink)
        head = seq
        if joiner.direct_from is not None and not greeting:  # it has not subscribed
            channel.direct[sink] = joiner.direct_from
        if joiner.at_seq is not None and not replayed:
            seq = min(seq, joiner.at_seq)
        self._send(sink, greeting)
        stream = channel.stream
        if stream.last_seq is None:
            stream.start(seq)
            stream.heard_seq = max(stream.heard_seq, head)
            channel.lane.sinks.add(sink)
            for item_seq, data in sorted(joiner.waiting.items()):
                self._pass_on(channel, stream.offer(item_seq, data), now_s)
            self._note_gap(channel)
        elif seq <= stream.last_seq:
            missed = [data for item_seq, data in sorted(joiner.waiting.items()) if seq < item_seq <= stream.last_seq]
            if len(missed) == stream.last_seq - seq:
                self._send(sink, missed)
                channel.lane.sinks.add(sink)
            else:  # the stream began behind `seq` when another was admitted, and what is between is still on its way
                self._rewind(channel, seq, now_s)
                channel.lane.sinks.add(sink)
                for item_seq, data in sorted(joiner.waiting.items()):
                    self._pass_on(channel, stream.offer(item_seq, data), now_s)
            stream.heard_seq = max(stream.heard_seq, head)
            self._note_gap(channel)
        else:
            stream.heard_seq = max(stream.heard_seq, head)
            channel.late_since_s = channel.late_since_s if channel.late else now_s
            channel.late[sink] = seq
            self._late.add(name)
        if joiner.aside:
            self._flush_channel(channel)
            self._send(sink, joiner.aside)
        return True

    def hold(self, name: str, check: int) -> None:
        """Let every listener of an ordered channel wait until `checked` says that it still may listen, or it leaves.
        `check` is greater than that of every hold before. Who is joining by itself for the first time is let be, and
        has to ask again: see `overtaken`."""
        channel = self.channels.get(name)
        if channel is None:
            return
        for sink in [*channel.lane.sinks, *channel.late]:
            self.join(sink, name)
            channel.joining[sink].asks = False
            channel.joining[sink].check = check
        for joiner in channel.joining.values():
            joiner.overtaken = joiner.asks
            if joiner.check or joiner.at_seq is not None:
                joiner.check = check

    def overtaken(self, sink: Sink, name: str) -> bool:
        """Whether a check has begun since `sink` asked, so that it has to ask once more before it is admitted. Says so
        once for each time."""
        channel = self.channels.get(name)
        joiner = None if channel is None else channel.joining.get(sink)
        if joiner is None or not joiner.overtaken:
            return False
        joiner.overtaken = False
        return True

    def checked(self, sink: Sink, name: str, check: int, seq: int, now_s: float) -> None:
        """`sink` may go on from where it stood; the channel's head is at `seq`. Nothing if a later check holds it."""
        channel = self.channels.get(name)
        joiner = None if channel is None else channel.joining.get(sink)
        if joiner is None or joiner.check != check:
            return
        joiner.check = 0
        if not joiner.asks:
            self.admit(sink, name, max(seq, joiner.at_seq or 0), (), now_s)

    def attach(self, sink: Sink, name: str, greeting: Sequence[bytes] = ()) -> bool:
        """Like `admit`, for a channel whose items have no common order."""
        channel = self.channels.get(name)
        if channel is None or sink not in channel.joining:
            return False
        self._flush_channel(channel)
        del channel.joining[sink]
        self._send(sink, greeting)
        channel.lane.sinks.add(sink)
        return True

    def resume(self, sink: Sink, name: str, now_s: float) -> bool:
        """Undo a `join` that came to nothing: a socket that listened before goes on. False if it did not."""
        channel = self.channels.get(name)
        joiner = None if channel is None else channel.joining.get(sink)
        if joiner is None or joiner.at_seq is None:
            return False
        if joiner.check:
            joiner.asks = False
            return True
        return self.admit(sink, name, joiner.at_seq, (), now_s)

    def shown_unasked(self, sink: Sink, name: str) -> range:
        """The seqs of a direct room that `sink`, which now subscribes, got on this connection without having done so.
        They are not missed."""
        channel = self.channels.get(name)
        joiner = None if channel is None else channel.joining.get(sink)
        if joiner is None or joiner.direct_from is None or joiner.at_seq is None:
            return range(0)
        return range(joiner.direct_from + 1, joiner.at_seq + 1)

    def attach_price(self, sink: Sink, name: str, max_rate: float, now_s: float) -> Item | None:
        """Like `admit`, for a market channel: at most `max_rate` prices a second. Returns the newest price.

        Rates are rounded to whole numbers, 1 to 50, so a channel has at most 50 lanes.
        """
        channel = self.channels.get(name)
        if channel is None or sink not in channel.joining:
            return None
        del channel.joining[sink]
        interval_s = 1.0 / min(max(round(max_rate), 1), RATE_MAX)
        lane = channel.prices.get(interval_s)
        if lane is None:
            lane = channel.prices[interval_s] = Lane(interval_s, only_newest=True)
            lane.flushed_at_s = 0.0 if channel.newest is None else now_s  # the newest price counts towards the rate
        lane.sinks.add(sink)
        return channel.newest

    def leave(self, sink: Sink, name: str) -> bool:
        """Stop listening. True when nobody listens to the channel any more: it is gone."""
        channel = self.channels.get(name)
        if channel is None:
            return False
        self._flush_channel(channel)
        self._note_left(channel, sink)
        self._remove(channel, sink)
        if (names := self._of.get(sink)) is not None:
            names.pop(name, None)
        if channel.is_empty:
            del self.channels[name]
            return True
        return False

    def drop(self, sink: Sink) -> list[str]:
        """Forget a socket that is gone. Returns the channels that nobody listens to any more."""
        gone = [name for name in list(self._of.get(sink, ())) if self.leave(sink, name)]
        self._of.pop(sink, None)
        self._left.pop(sink, None)
        return gone

    def sinks_of(self, name: str) -> list[Sink]:
        """Every socket on a channel, admitted or joining."""
        channel = self.channels.get(name)
        return [] if channel is None else list(channel.sinks())

    def listeners_of(self, name: str) -> list[Sink]:
        """The sockets that were admitted to a channel; not those that have only asked, and perhaps may not know it."""
        channel = self.channels.get(name)
        if channel is None:
            return []
        return [sink for sink in channel.sinks() if channel.is_admitted(sink)]

    def channels_of(self, sink: Sink) -> list[str]:
        """Every channel of a socket."""
        return list(self._of.get(sink, ()))

    # Deliveries -----------------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery, now_s: float) -> None:
        """Take one item from the bus. HOT."""
        channel = self.channels.get(delivery.channel)
        if channel is None:
            return
        match delivery.kind:
            case DeliveryClass.LATEST:
                self._deliver_price(channel, delivery, now_s)
            case DeliveryClass.TRANSIENT:
                self._deliver_transient(channel, delivery, now_s)
            case _ if not delivery.seq:
                self._deliver_unordered(channel, delivery, now_s)
            case _ if delivery.key:
                self._deliver_direct(channel, delivery, now_s)
            case _:
                self._deliver_ordered(channel, delivery.seq, text_frame(delivery.frame), now_s)

    def fill(self, gap: Gap, first: int, frames: Sequence[bytes], now_s: float) -> None:
        """Take what was missing; what of it cannot be had any more is skipped."""
        channel = self.channels.get(gap.channel)
        if channel is None:
            return
        for offset, frame in enumerate(frames):
            self._deliver_ordered(channel, first + offset, text_frame(frame), now_s)
        self._pass_on(channel, channel.stream.skip_to(gap.through), now_s)
        self._note_gap(channel)

    def heard(self, name: str, seq: int) -> None:
        """A channel's head is known to be at `seq`; what of it has not come is a gap."""
        if (channel := self.channels.get(name)) is not None:
            channel.stream.heard_seq = max(channel.stream.heard_seq, seq)
            self._note_gap(channel)

    def forget_prices(self) -> None:
        """Prices may have been missed: the newest ones are no longer known."""
        for channel in self.channels.values():
            channel.newest = None

    def hold_directs(self) -> None:
        """Lines may have been lost. Of a room that a socket knows it shows in the seqs; the direct messages that would
        make one known to it wait from now on, until `release_directs`."""
        if self._directs_aside is None:
            self._directs_aside, self._aside_bytes = [], 0

    def catch_up(self, user_id: str, room_id: str, posts: Sequence[DirectPost], now_s: float) -> None:
        """These were said in a direct room of the user, the newest last. Who has been connected since and does not know
        the room has missed them: they become gaps."""
        users = self.channels.get(user_channel(user_id))
        if users is None:
            return
        name = room_channel(room_id)
        for sink in self._new_to(name, users):
            had = self._had(sink, name)
            missed = (post.seq for post in posts if post.created_at_ms >= sink.opened_ms and post.seq > had)
            if (first := next(missed, None)) is not None:
                self.join(sink, name)
                self.channels[name].joining[sink].direct_from = first - 1
                self.admit(sink, name, first - 1, (), now_s)
                self.heard(name, posts[-1].seq)

    def release_directs(self, now_s: float) -> None:
        """All is known that can be of what was missing: go on with what has come since."""
        aside, self._directs_aside = self._directs_aside or [], None
        for delivery in aside:
            self.deliver(delivery, now_s)

    def linger(self, sink: Sink, name: str, now_s: float) -> None:
        """An attempt to subscribe failed in a way that lets the client try again: until it does, what comes waits, so
        that a direct message is not shown before those that were missed. Not for long: see `given_up`."""
        channel = self.channels.get(name)
        joiner = None if channel is None else channel.joining.get(sink)
        if joiner is not None:
            joiner.asks = False
            joiner.lingers_until_s = now_s + LINGER_S
            self._lingering.add(name)

    def given_up(self, now_s: float) -> list[tuple[Sink, str]]:
        """Who has not tried again is returned: they leave. For whom direct messages wait, which come unasked, is
        stranded instead: shown without those that were missed, they would hide the gap."""
        leaving: list[tuple[Sink, str]] = []
        for name in list(self._lingering):
            channel = self.channels.get(name)
            lingering = [] if channel is None else [item for item in channel.joining.items() if item[1].lingers_until_s]
            if not lingering:
                self._lingering.discard(name)
            for sink, joiner in lingering:
                if (joiner.lingers_until_s or 0.0) > now_s:
                    continue
                if joiner.direct_from is None:
                    leaving.append((sink, name))
                else:
                    sink.stranded()
        return leaving

    def overdue(self, now_s: float) -> None:
        """Note as gaps what has been promised to subscribers and has not come for a second."""
        for name in list(self._late):
            channel = self.channels.get(name)
            if channel is None or not channel.late:
                self._late.discard(name)
            elif now_s - channel.late_since_s > OVERDUE_S:
                self._note_gap(channel)

    # Flushing -------------------------------------------------------------------------------------------------------

    def flush(self, now_s: float) -> None:
        """Write every lane that is due."""
        while self._due and self._due[0][0] <= now_s:
            lane = heapq.heappop(self._due)[2]
            lane.due = False
            lane.flush(now_s, self.written)

    def pace(self, flush_s: float) -> None:
        """The last flush took so long, up to the last write: lanes gather for longer the longer that is, 30 ms at most.

        Down it goes by and by, so that one quick flush among slow ones changes little.
        """
        wanted_s = min(max(GATHER_TURNS * flush_s, GATHER_MIN_S), GATHER_MAX_S)
        self.gather_s = max(wanted_s, (wanted_s + 3 * self.gather_s) / 4)

    @property
    def next_due_s(self) -> float | None:
        """When `flush` has something to do next; None if nothing waits."""
        return self._due[0][0] if self._due else None

    # Inside ---------------------------------------------------------------------------------------------------------

    def _deliver_ordered(self, channel: Channel, seq: int, data: bytes, now_s: float) -> None:
        for joiner in channel.joining.values():
            if len(joiner.waiting) < BACKLOG_MAX:
                joiner.waiting[seq] = data
        due = channel.stream.offer(seq, data)
        if due:
            self._pass_on(channel, due, now_s)
        elif channel.stream.heard_seq > (channel.stream.last_seq or 0):
            self._note_gap(channel)

    def _pass_on(self, channel: Channel, due: Iterable[tuple[int, bytes]], now_s: float) -> None:
        for seq, data in due:
            if channel.late:
                self._admit_late(channel, seq - 1, now_s)
            self._put(channel.lane, Item(DeliveryClass.LOSSLESS, "", data), now_s)
        if channel.late and channel.stream.last_seq is not None:
            self._admit_late(channel, channel.stream.last_seq, now_s)

    def _admit_late(self, channel: Channel, seq: int, now_s: float) -> None:
        arrived = [sink for sink, at in channel.late.items() if at <= seq]
        if arrived:
            channel.lane.flush(now_s, self.written)  # up to and with `seq`: not for them
            for sink in arrived:
                del channel.late[sink]
                channel.lane.sinks.add(sink)

    def _deliver_unordered(self, channel: Channel, delivery: Delivery, now_s: float) -> None:
        if delivery.key:
            seen = (delivery.channel, delivery.key)
            if seen in self._seen_keys:
                return
            self._seen_keys[seen] = None
            if len(self._seen_keys) > SEEN_KEYS_MAX:
                self._seen_keys.popitem(last=False)
        item = Item(DeliveryClass.LOSSLESS, "", text_frame(delivery.frame))
        for joiner in channel.joining.values():
            if joiner.check and len(joiner.aside) < BACKLOG_MAX:
                joiner.aside.append(item.data)
        self._put(channel.lane, item, now_s)

    def _deliver_direct(self, users: Channel, delivery: Delivery, now_s: float) -> None:
        """A direct message: the user's sockets listen to its room from now on, without having subscribed.

        Each of its two users' channels brings it, in order, but one may run ahead of the other: where the room has
        passed on for one user what is the first for the other, it goes back to there.
        """
        name = room_channel(delivery.key)
        data = text_frame(delivery.frame)
        room = self.channels.get(name)
        fresh = {sink for sink in self._new_to(name, users) if self._had(sink, name) < delivery.seq}
        if fresh and self._directs_aside is not None:
            self._aside_bytes += len(data)
            if self._aside_bytes <= ASIDE_MAX_BYTES:
                self._directs_aside.append(delivery)
            else:
                self._strand(delivery)
            return
        if room is None:
            room = self.channels[name] = Channel(name)
        if room.stream.last_seq is None:
            room.stream.start(delivery.seq - 1)
        self._flush_channel(room)
        if fresh and room.stream.last_seq is not None and delivery.seq <= room.stream.last_seq:
            self._rewind(room, delivery.seq - 1, now_s)
        for sink in users.lane.sinks & room.joining.keys():
            joiner = room.joining[sink]
            if joiner.lingers_until_s is not None and joiner.direct_from is None:
                joiner.direct_from = delivery.seq - 1
        for sink in fresh:
            room.lane.sinks.add(sink)
            room.direct[sink] = room.stream.last_seq or 0
            self._of.setdefault(sink, {})[name] = None
        if room.is_empty:
            del self.channels[name]
            return
        self._deliver_ordered(room, delivery.seq, data, now_s)
        if not room.late:
            self._note_gap(room)

    def _new_to(self, name: str, users: Channel) -> set[Sink]:
        """The sockets of a user that do not listen to a room."""
        room = self.channels.get(name)
        return users.lane.sinks - set(() if room is None else room.sinks())

    def _strand(self, delivery: Delivery) -> None:
        """A direct message is not kept for those that do not know its room; to the others it is a gap."""
        name, users = room_channel(delivery.key), self.channels.get(delivery.channel)
        if users is not None:
            for sink in self._new_to(name, users):
                sink.stranded()
        self.heard(name, delivery.seq)

    def _had(self, sink: Sink, name: str) -> int:
        """Up to where a socket had a channel that it listens to no more; 0 if it never did."""
        return self._left.get(sink, {}).get(name, 0)

    def _note_left(self, channel: Channel, sink: Sink) -> None:
        """At most 64 a socket, the oldest is forgotten first."""
        joiner = channel.joining.get(sink)
        seq = channel.position(sink) if joiner is None else joiner.at_seq
        if seq is not None:
            left = self._left.setdefault(sink, {})
            left.pop(channel.name, None)
            left[channel.name] = seq
            if len(left) > LEFT_MAX:
                del left[next(iter(left))]

    def _rewind(self, channel: Channel, seq: int, now_s: float) -> None:
        """Go back to `seq` for somebody new; those who have more go on when the stream is again where they are."""
        if (last_seq := channel.stream.last_seq) is not None:
            channel.late_since_s = channel.late_since_s if channel.late else now_s
            channel.late.update(dict.fromkeys(channel.lane.sinks, last_seq))
            self._late.add(channel.name)
            channel.lane.sinks.clear()
        channel.stream.rewind(seq)

    def _deliver_transient(self, channel: Channel, delivery: Delivery, now_s: float) -> None:
        """`key` is a user or session that is left out."""
        item = Item(DeliveryClass.TRANSIENT, "", text_frame(delivery.frame))
        if not delivery.key:
            self._put(channel.lane, item, now_s)
            return
        self._flush_channel(channel)
        batch = Batch([item])
        for sink in channel.lane.sinks:
            if delivery.key not in (sink.user_id, sink.session_id):
                sink.write(batch)
                self.written.add(1, 1, len(item.data))

    def _deliver_price(self, channel: Channel, delivery: Delivery, now_s: float) -> None:
        if delivery.seq <= channel.newest_seq and channel.newest is not None:
            return
        key = delivery.channel + STALE_MARK if b'"stale":' in delivery.frame else delivery.channel
        item = Item(DeliveryClass.LATEST, key, text_frame(delivery.frame))
        channel.newest, channel.newest_seq = item, delivery.seq
        for lane in channel.prices.values():
            self._put(lane, item, now_s)

    def _put(self, lane: Lane, item: Item, now_s: float) -> None:
        if lane.only_newest:  # a price that turned stale, or fresh again, says so once: it is not conflated away
            lane.items[:] = [item] if item.key.endswith(STALE_MARK) else [*_marked(lane.items), item]
        else:
            lane.items.append(item)
        if not lane.due:
            lane.due = True
            due_s = lane.flushed_at_s + (lane.interval_s or self.gather_s)
            if due_s <= now_s:
                due_s = now_s
            elif lane.only_newest:
                due_s = math.ceil(due_s / PRICE_GRID_S) * PRICE_GRID_S
            heapq.heappush(self._due, (due_s, next(self._numbers), lane))

    def _send(self, sink: Sink, frames: Sequence[bytes]) -> None:
        if frames:
            send(sink, frames)
            self.written.add(1, len(frames), sum(map(len, frames)))

    def _flush_channel(self, channel: Channel) -> None:
        """Write what has gathered before the subscribers change; the lane's pace stays."""
        if channel.lane.items:
            channel.lane.flush(channel.lane.flushed_at_s, self.written)

    def _remove(self, channel: Channel, sink: Sink) -> None:
        channel.lane.sinks.discard(sink)
        channel.joining.pop(sink, None)
        channel.late.pop(sink, None)
        channel.direct.pop(sink, None)
        for interval_s, lane in list(channel.prices.items()):
            lane.sinks.discard(sink)
            if not lane.sinks:
                del channel.prices[interval_s]
        if not channel.lane.sinks and not channel.late:
            channel.stream.stop()

    def _note_gap(self, channel: Channel) -> None:
        if channel.stream.missing(channel.name) is not None:
            self.gaps.add(channel.name)


def send(sink: Sink, frames: Sequence[bytes]) -> None:
    """Write whole frames to one socket, lossless and in order."""
    if frames:
        sink.write(Batch.lossless(frames))


def _marked(items: list[Item]) -> list[Item]:
    return [item for item in items if item.key.endswith(STALE_MARK)]
