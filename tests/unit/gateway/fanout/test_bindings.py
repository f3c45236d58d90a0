"""Shards bound for channels, and unbound when no channel needs them."""

import asyncio
from typing import Any, cast

import pytest

from gateway.fanout import bindings
from gateway.fanout.bindings import ShardBindings
from shared.bus.bus import Bus
from shared.bus.delivery import room_channel
from shared.errors import Unavailable


class BindingBus:
    """A bus that keeps every binding for later connections, also one that it cannot make now."""

    def __init__(self) -> None:
        self.fails = False
        self.kept: set[str] = set()

    async def bind(self, queue: Any, exchange: str, key: str) -> None:
        self.kept.add(key)
        if self.fails:
            raise Unavailable("not connected to the broker")

    async def unbind(self, queue: Any, exchange: str, key: str) -> None:
        self.kept.discard(key)


@pytest.mark.parametrize("fails", [False, True])
async def test_idle_shard_is_unbound_even_if_its_binding_failed(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "UNBIND_LINGER_S", 0.0)
    bus = BindingBus()
    bus.fails = fails
    shards = ShardBindings(cast(Bus, bus), cast(Any, None))
    channel = room_channel("r")
    try:
        await shards.require(channel)
    except Unavailable:
        assert fails
    assert bus.kept
    shards.release(channel)
    await asyncio.sleep(0)
    await shards.unbind_idle()
    assert not bus.kept
