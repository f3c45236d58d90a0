"""A channel that the broker refuses on is replaced, and closed once nothing waits on it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from shared.bus.confirm_channel import REPLACE_INTERVAL_S, ConfirmChannel, Outgoing


def refused() -> DeliveryError:
    return DeliveryError(None, Basic.Nack(delivery_tag=1))


def returned(body: bytes) -> PublishError:
    frame = Basic.Return()
    return PublishError(
        DeliveredMessage(delivery=frame, header=ContentHeader(), body=body, channel=cast(Any, None)), frame
    )


@dataclass(eq=False)
class FakeChannel:
    """A channel that refuses, confirms, or waits for `confirm`."""

    refuses: bool = False
    confirm: asyncio.Event | None = None
    published: list[bytes] = field(default_factory=list)
    is_closed: bool = False

    async def publish(self, message: Outgoing) -> None:
        await asyncio.sleep(0)
        body = message.body
        if message.is_mandatory:
            raise returned(body)
        if body != b"refused" and self.confirm is not None:
            await self.confirm.wait()
        elif self.refuses:
            raise refused()
        self.published.append(body)

    async def close(self) -> None:
        self.is_closed = True


class Rotation:
    """A ConfirmChannel on `channels`, each opened once, and its clock."""

    def __init__(self, *channels: FakeChannel) -> None:
        self.now_s = 0.0
        self.unopened = list(channels[1:])
        self.confirmed = ConfirmChannel(channels[0], self.open, lambda: self.now_s)

    async def open(self) -> FakeChannel:
        await asyncio.sleep(0)
        return self.unopened.pop(0)

    async def publish(self, body: bytes) -> None:
        await self.confirmed.publish(Outgoing("", "queue", body, None))


async def test_refused_body_is_published_on_new_channel() -> None:
    stale, fresh = FakeChannel(refuses=True), FakeChannel()
    rotation = Rotation(stale, fresh)
    await rotation.publish(b"one")
    await rotation.publish(b"two")
    assert fresh.published == [b"one", b"two"]
    assert stale.is_closed


async def test_bodies_refused_together_open_one_channel() -> None:
    fresh = FakeChannel()
    rotation = Rotation(FakeChannel(refuses=True), fresh)
    await asyncio.gather(*(rotation.publish(b"%d" % number) for number in range(5)))
    assert sorted(fresh.published) == [b"0", b"1", b"2", b"3", b"4"]


async def test_replaced_channel_closes_after_its_last_confirm() -> None:
    stale, fresh = FakeChannel(refuses=True, confirm=asyncio.Event()), FakeChannel()
    rotation = Rotation(stale, fresh)
    waiting = asyncio.create_task(rotation.publish(b"accepted"))
    await asyncio.sleep(0)
    await rotation.publish(b"refused")
    assert not stale.is_closed
    assert stale.confirm is not None
    stale.confirm.set()
    await waiting
    assert stale.is_closed
    assert (stale.published, fresh.published) == ([b"accepted"], [b"refused"])


async def test_queue_that_refuses_everything_costs_few_channels() -> None:
    channels = [FakeChannel(refuses=True) for _ in range(3)]
    rotation = Rotation(*channels)
    for _ in range(10):
        with pytest.raises(DeliveryError):
            await rotation.publish(b"one")
    assert len(rotation.unopened) == 1
    rotation.now_s += REPLACE_INTERVAL_S
    with pytest.raises(DeliveryError):
        await rotation.publish(b"one")
    assert not rotation.unopened


async def test_mandatory_message_that_comes_back_keeps_its_channel() -> None:
    first = FakeChannel()
    rotation = Rotation(first, FakeChannel())
    with pytest.raises(PublishError):
        await rotation.confirmed.publish(Outgoing("", "missing", b"one", None, is_mandatory=True))
    assert not first.is_closed
    assert len(rotation.unopened) == 1
