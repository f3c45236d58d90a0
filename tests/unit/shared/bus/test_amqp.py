"""Failures of the broker's client, as the bus sees them."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.bus.amqp import LOST, BrokerConnection


class ClosingChannel:
    """A channel that closes while a publish waits for its confirm: aiormq then raises a bare Exception."""

    async def get_underlay_channel(self) -> "ClosingChannel":
        return self

    async def basic_publish(self, *_: Any, **__: Any) -> None:
        raise Exception


async def test_publish_on_closing_channel_counts_as_lost() -> None:
    link = BrokerConnection(cast(Any, SimpleNamespace(close_callbacks=set())))
    link._channel = cast(Any, ClosingChannel())
    with pytest.raises(LOST, match="the channel was closed"):
        await link.publish("exchange", "key", b"{}")
