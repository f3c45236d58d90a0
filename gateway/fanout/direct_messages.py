"""Direct messages: each of a user's sockets subscribes implicitly to the room of a direct message. Pure.

A direct message arrives on the channels of its two users. On each of these channels the messages are in order, but one
may run ahead of the other. The room may thus have delivered a message to one user's sockets before the other user's
sockets join; then the room's stream is rewound to just before that message (`Stream.rewind`).

After a loss of lines, a gap in the positions shows only on rooms that a socket has joined. Messages of other rooms are
withheld (`withhold`) until the lost ones are known (`catch_up`, `release`).
"""

from collections.abc import Sequence

from gateway.fanout.channel import Channel
from gateway.fanout.lane import Sink
from gateway.fanout.registry import Registry
from gateway.fanout.wire import text_frame_or_empty
from shared.bus.delivery import Delivery, room_channel, user_channel
from shared.commands.chat_queries import DirectMessagePosition

WITHHELD_MAX_BYTES = 16 * 1024 * 1024
LEFT_MAX = 64
_GAVE_UP = -1  # in place of a position: the socket asked for items that it never received


class DirectMessages:
    """Delivers direct messages. Bound: 16 MB are withheld; beyond that, sockets new to the room are closed.

    `has_missed` is set when a head names a message that did not arrive, in a room that a socket has not joined. From
    then on messages are withheld; the caller clears `has_missed`, fetches recent ones, and calls `release`.
    """

    def __init__(self, registry: Registry) -> None:
        self.has_missed = False
        self._registry = registry
        self._withheld: list[Delivery] | None = None  # None unless lines may have been lost
        self._withheld_bytes = 0
        self._left: dict[Sink, dict[str, int]] = {}  # by channel that a socket has left: its position

    def deliver(self, channel_of_user: Channel, delivery: Delivery, now_s: float) -> None:
        """Deliver a message from a user's channel, and subscribe the user's sockets to its room."""
        name, data = room_channel(delivery.key), text_frame_or_empty(delivery.frame)
        fresh = self._sockets_missing(name, channel_of_user, delivery.position)
        if fresh and self._withheld is not None:
            self._append_withheld(delivery, len(data))
            return
        if fresh:
            fresh = self._close_those_that_gave_up(fresh, name)
        room = self._registry.open(name)
        room.go_live_implicitly(fresh, delivery.position, now_s)
        for sink in channel_of_user.live & room.waiting.keys():
            room.waiting[sink].note_direct(delivery.position)
        for sink in fresh:
            self._registry.add(sink, name)
        if self._registry.discard_empty(room):
            return
        room.deliver_ordered(delivery.position, data, now_s)
        if not room.stream.ahead:
            room.stream.note_gap()

    def deliver_head(self, channel_of_user: Channel, delivery: Delivery) -> None:
        """Note the head of a direct room, which reveals a gap to sockets that have joined the room.

        A socket that has not joined the room, and was open when the entry was made, has missed its message.
        """
        name = room_channel(delivery.key)
        room = self._registry.channels.get(name)
        if room is not None:
            room.stream.note_head_and_gap(delivery.position)
        at_ms = int(delivery.frame or 0)
        if any(sink.opened_ms <= at_ms for sink in self._sockets_missing(name, channel_of_user, delivery.position)):
            self.has_missed = True
            self.withhold()  # a later message of the room may arrive next, and must not be shown before the missed one

    def withhold(self) -> None:
        """Withhold messages of rooms that are new to a socket until `release`, since lines may have been lost."""
        if self._withheld is None:
            self._withheld, self._withheld_bytes = [], 0

    def catch_up(self, user_id: str, room_id: str, messages: Sequence[DirectMessagePosition], now_s: float) -> None:
        """Apply the positions of the recent entries of a user's direct room, the newest last.

        They become gaps for sockets that were connected at the time and have not joined the room.
        """
        channel_of_user = self._registry.channels.get(user_channel(user_id))
        if channel_of_user is None:
            return
        name = room_channel(room_id)
        for sink in self._new_to(name, channel_of_user):
            position = self._position_left(sink, name)
            missed = (item.rev for item in messages if item.created_at_ms >= sink.opened_ms and item.rev > position)
            if (first := next(missed, None)) is None:
                continue
            if position == _GAVE_UP:
                sink.close_for_resume()
            else:
                room = self._registry.add(sink, name)
                room.catch_up_implicitly(sink, first - 1, now_s)
                room.stream.note_head_and_gap(messages[-1].rev)

    def release(self, now_s: float) -> None:
        """Deliver the withheld messages, after every lost one that could be found is noted as a gap."""
        withheld, self._withheld = self._withheld or [], None
        for delivery in withheld:
            channel_of_user = self._registry.channels.get(delivery.channel)
            if channel_of_user is not None:
                self.deliver(channel_of_user, delivery, now_s)

    def note_left(self, sink: Sink, channel: Channel) -> None:
        """Remember the position of a socket that leaves a channel. Bound: the last 64 channels per socket."""
        position = channel.position_of(sink)
        if position is not None:
            self._remember_left(sink, channel.name, position)

    def note_given_up(self, sink: Sink, name: str) -> None:
        """Note that the attempt of a socket to subscribe has failed and was not retried in time.

        The attempt may be repeated, and replay items: no later message may be shown before these.
        """
        self._remember_left(sink, name, _GAVE_UP)

    def forget(self, sink: Sink) -> None:
        """Forget a closed socket."""
        self._left.pop(sink, None)

    def _new_to(self, name: str, channel_of_user: Channel) -> set[Sink]:
        """Return the user's sockets that have not joined the room."""
        room = self._registry.channels.get(name)
        return set(channel_of_user.live) if room is None else channel_of_user.live - set(room.sinks())

    def _sockets_missing(self, name: str, channel_of_user: Channel, position: int) -> set[Sink]:
        """Return the user's sockets that lack the item `position` of a room.

        These have not joined the room, and did not leave it at or after that position.
        """
        return {sink for sink in self._new_to(name, channel_of_user) if self._position_left(sink, name) < position}

    def _position_left(self, sink: Sink, name: str) -> int:
        """Return the position of a socket on a channel that it left; 0 if it was never on it."""
        return self._left.get(sink, {}).get(name, 0)

    def _remember_left(self, sink: Sink, name: str, position: int) -> None:
        left = self._left.setdefault(sink, {})
        left.pop(name, None)
        left[name] = position
        if len(left) > LEFT_MAX:
            del left[next(iter(left))]

    def _close_those_that_gave_up(self, sinks: set[Sink], name: str) -> set[Sink]:
        """Close the sockets that gave up a subscription to the room, and return the other sockets.

        The clients of the closed sockets reconnect and resume it.
        """
        given_up = {sink for sink in sinks if self._position_left(sink, name) == _GAVE_UP}
        for sink in given_up:
            sink.close_for_resume()
        return sinks - given_up

    def _append_withheld(self, delivery: Delivery, size_bytes: int) -> None:
        self._withheld_bytes += size_bytes
        if self._withheld is not None and self._withheld_bytes <= WITHHELD_MAX_BYTES:
            self._withheld.append(delivery)
        else:
            self._close_new_sockets(delivery)

    def _close_new_sockets(self, delivery: Delivery) -> None:
        """Close the sockets that have not joined the room of a message; to the others the message is a gap."""
        name = room_channel(delivery.key)
        channel_of_user, room = (self._registry.channels.get(channel) for channel in (delivery.channel, name))
        if channel_of_user is not None:
            for sink in self._new_to(name, channel_of_user):
                sink.close_for_resume()
        if room is not None:
            room.stream.note_head_and_gap(delivery.position)
