"""All channels of one gateway process, and the channels of each socket. Pure."""

from gateway.fanout.channel import Channel
from gateway.fanout.flush_schedule import FlushSchedule
from gateway.fanout.lane import Sink
from gateway.fanout.stream import Attention


class Registry:
    """Channels by name. A channel exists while a socket needs it."""

    def __init__(self, schedule: FlushSchedule, attention: Attention) -> None:
        self.channels: dict[str, Channel] = {}
        self._schedule = schedule
        self._attention = attention
        self._names: dict[Sink, dict[str, None]] = {}  # dicts used as sets: a small set needs three times the memory

    def open(self, name: str) -> Channel:
        """Return the channel of this name, created if need be. The counterpart is `discard_empty`."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, self._schedule, self._attention)
        return channel

    def add(self, sink: Sink, name: str) -> Channel:
        """Record that a socket is on a channel, and return the channel."""
        self._names.setdefault(sink, {})[name] = None
        return self.open(name)

    def remove(self, sink: Sink, channel: Channel) -> bool:
        """Take a socket off a channel. Return whether it was the last one and the channel is deleted."""
        channel.stream.flush()
        channel.remove(sink)
        if (names := self._names.get(sink)) is not None:
            names.pop(channel.name, None)
        return self.discard_empty(channel)

    def discard_empty(self, channel: Channel) -> bool:
        """Delete a channel that no socket needs. Return whether it is deleted."""
        if not channel.is_empty:
            return False
        del self.channels[channel.name]
        return True

    def has(self, sink: Sink, name: str) -> bool:
        """Return whether a socket is on a channel, in any state."""
        return name in self._names.get(sink, ())

    def names_of(self, sink: Sink) -> list[str]:
        """Return the names of a socket's channels."""
        return list(self._names.get(sink, ()))

    def forget(self, sink: Sink) -> None:
        """Forget a socket that has left all its channels."""
        self._names.pop(sink, None)
