"""Joining and leaving channels: updates the hub and the bindings together."""

import asyncio

from gateway.fanout.bindings import ShardBindings
from gateway.fanout.channel import Channel
from gateway.fanout.hub import Hub
from gateway.fanout.lane import Sink


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

    def evict(self, name: str, user_id: str) -> None:
        """Unsubscribe all sockets of a user from a channel."""
        for sink in self._hub.sinks_of(name):
            if sink.user_id == user_id:
                self.leave(sink, name)
                sink.unsubscribed(name)

    def forget(self, sink: Sink) -> None:
        """Take a closed socket off all its channels."""
        for name in self._hub.drop(sink):
            self._bindings.release(name)
