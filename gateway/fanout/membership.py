"""Joining and leaving channels: updates the hub and the bindings together."""

import asyncio

from gateway.fanout.bindings import ShardBindings
from gateway.fanout.channel import Channel
from gateway.fanout.hub import Hub
from gateway.fanout.lane import Sink, send
from gateway.fanout.wire import text_frame
from shared.bus.delivery import EndReason, Eviction, room_channel, user_channel
from shared.protocol.server_frames import UnsubscribedData, frame


class ChannelMembership:
    """Keeps a channel's shard bound for as long as a socket is on the channel."""

    def __init__(self, hub: Hub, bindings: ShardBindings) -> None:
        self._hub = hub
        self._bindings = bindings

    async def join(self, sink: Sink, name: str) -> Channel:
        """Begin an attempt to subscribe; return the channel once its shard is bound.

        Raises Unavailable; the caller must then still end the attempt.
        """
        channel = self._hub.join(sink, name)
        await self._bindings.require(name)
        return channel

    async def join_all(self, sink: Sink, names: list[str]) -> list[Channel]:
        """Begin an attempt on each channel; see `join`."""
        if len(names) <= 2:  # usually bound already, so tasks would be the main cost
            return [await self.join(sink, name) for name in names]
        return await asyncio.gather(*(self.join(sink, name) for name in names))

    def leave(self, sink: Sink, name: str) -> None:
        """Take a socket off a channel."""
        if self._hub.leave(sink, name):
            self._bindings.release(name)

    def expel(self, room_id: str, user_id: str, reason: EndReason | None = None) -> None:
        """Unsubscribe all sockets of a user from a room at once, and report the reason, if there is one."""
        name, farewell = room_channel(room_id), farewell_of(room_id, reason)
        for sink in self._hub.sinks_of(name):
            if sink.user_id == user_id:
                self._end(sink, name, farewell)

    def evict(self, room_id: str, user_id: str, rev: int, reason: EndReason | None) -> None:
        """Unsubscribe all sockets of a user from a room, each once it has received the entry `rev`."""
        self._hub.evict(room_channel(room_id), user_id, rev, farewell_of(room_id, reason))
        self.finish_evictions()

    def finish_evictions(self) -> None:
        """Unsubscribe the sockets that channels have evicted, and report the reasons."""
        for sink, name, farewell in self._hub.take_evicted():
            self._end(sink, name, farewell)

    def notify_removed(self, eviction: Eviction, rev: int) -> None:
        """Tell a user's sockets that are not on the room's channel that the entry `rev` removed the user from the room.

        Subscribed sockets are notified after that entry; see `evict`.
        """
        room_id, before_ms = eviction.chatroom_id, eviction.opened_before_ms
        own, farewell = user_channel(eviction.user_id), farewell_of(room_id, eviction.reason)
        if self._hub.is_repeat(own, f"{room_id}/{rev}"):
            return
        for sink in self._hub.sinks_of(own):
            is_concerned = not before_ms or sink.opened_ms < before_ms
            if is_concerned and farewell and not self._hub.is_on(sink, room_channel(room_id)):
                send(sink, [farewell])

    def _end(self, sink: Sink, name: str, farewell: bytes) -> None:
        self.leave(sink, name)
        sink.unsubscribed(name)
        if farewell:
            send(sink, [farewell])

    def forget(self, sink: Sink) -> None:
        """Take a closed socket off all its channels."""
        for name in self._hub.drop(sink):
            self._bindings.release(name)


def farewell_of(room_id: str, reason: EndReason | None) -> bytes:
    """Return the frame that ends a subscription; nothing without a reason."""
    if reason is None:
        return b""
    return text_frame(frame("unsubscribed", UnsubscribedData(channel="chatroom", chatroom_id=room_id, reason=reason)))
