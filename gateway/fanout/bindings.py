"""Bindings of this gateway's queue to the shards of the delivery exchange."""

import asyncio
from contextlib import suppress

from gateway import metrics
from shared.bus.bus import Bus
from shared.bus.delivery import CONTROL_CHANNEL
from shared.bus.private_queue import PrivateQueue
from shared.bus.topology import DELIVERIES, shard_key, shard_of
from shared.errors import Unavailable

UNBIND_LINGER_S = 30.0


class ShardBindings:
    """The shards that are bound because sockets here need their channels.

    A shard is unbound when no channel of it has been needed for 30 s, so clients that come and go do not rebind.
    Memory: one future per bound shard, one set entry per needed channel.
    """

    def __init__(self, bus: Bus, queue: PrivateQueue) -> None:
        self._bus = bus
        self._queue = queue
        self._needed: dict[int, set[str]] = {}  # channels by shard
        self._bound: dict[int, asyncio.Future[None]] = {}
        self._idle_since_s: dict[int, float] = {}
        self._loop = asyncio.get_running_loop()

    async def readiness(self) -> str | None:
        """Return None once this gateway receives control deliveries, such as revocations; otherwise the reason."""
        binding = self._bound.get(shard_of(CONTROL_CHANNEL))
        is_bound = binding is not None and binding.done() and binding.exception() is None
        return None if is_bound else "deliveries: the queue of this gateway is not bound yet"

    def bound_shards(self) -> frozenset[int]:
        """Return the shards whose lines arrive."""
        return frozenset(shard for shard, binding in self._bound.items() if binding.done())

    async def require(self, channel: str, holder: str = "") -> None:
        """Return once the channel's shard is bound. Raises Unavailable; then the channel is not required.

        A channel that several parts of the gateway require has a `holder` for each of them, and is released by each.
        """
        shard = shard_of(channel)
        self._needed.setdefault(shard, set()).add(holder + channel)
        self._idle_since_s.pop(shard, None)
        binding = self._bound.get(shard)
        if binding is None:
            binding = self._bound[shard] = self._loop.create_future()
            await self._bind(shard, binding)
        elif not binding.done():
            await asyncio.shield(binding)
        if binding.exception() is not None:
            self.release(channel, holder)
            raise Unavailable("not connected to the broker")

    async def _bind(self, shard: int, binding: "asyncio.Future[None]") -> None:
        try:
            await self._bus.bind(self._queue, DELIVERIES, shard_key(shard))
        except BaseException as error:
            del self._bound[shard]
            binding.set_exception(Unavailable("not connected to the broker"))
            if not isinstance(error, Unavailable):
                raise
        else:
            binding.set_result(None)
            metrics.SHARDS_BOUND.inc()

    def release(self, channel: str, holder: str = "") -> None:
        """Release a channel that no socket here needs."""
        shard = shard_of(channel)
        needed = self._needed.get(shard)
        if needed is None:
            return
        needed.discard(holder + channel)
        if not needed:
            del self._needed[shard]
            self._idle_since_s[shard] = self._loop.time()

    async def unbind_idle(self) -> None:
        """Unbind the shards that no channel has required for 30 s, also those whose binding failed: see `Bus.bind`."""
        now_s = self._loop.time()
        for shard, since_s in list(self._idle_since_s.items()):
            if now_s - since_s < UNBIND_LINGER_S or shard in self._needed:
                continue
            del self._idle_since_s[shard]
            if self._bound.pop(shard, None) is not None:
                metrics.SHARDS_BOUND.dec()
            with suppress(Unavailable):
                await self._bus.unbind(self._queue, DELIVERIES, shard_key(shard))
