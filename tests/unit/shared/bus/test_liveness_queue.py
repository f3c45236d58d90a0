"""The check of another process's queue while the own channel closes."""

from types import SimpleNamespace
from typing import Any, cast

from shared.bus.liveness_queue import LivenessQueue


async def test_closing_channel_proves_nothing() -> None:
    async def publish(*_: Any, **__: Any) -> None:
        raise Exception  # as aiormq does in a caller that waits for a confirm

    liveness = LivenessQueue("amqp://unused", "node_1")
    liveness._channel = cast(Any, SimpleNamespace(default_exchange=SimpleNamespace(publish=publish)))
    assert not await liveness.is_gone("life.node_2.1")
