"""Attempts during which the room changes: no socket goes live on an outdated answer."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.auth.identity import Identity
from gateway.backend import Backend
from gateway.fanout.activity_feed import ActivityFeed
from gateway.fanout.batch import Batch
from gateway.fanout.bindings import ShardBindings
from gateway.fanout.hub import Hub
from gateway.fanout.lane import Sink
from gateway.fanout.membership import ChannelMembership
from gateway.fanout.retries import Retries
from gateway.live.missed_items import MissedItems
from gateway.live.session import Session
from gateway.live.socket import Socket
from gateway.live.subscriptions import Subscriptions
from gateway.settings import GatewaySettings
from shared.bus.delivery import Delivery, DeliveryKind, room_channel
from shared.byte_budget import ByteBudget, Hold
from shared.commands.chat import RoomHead
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.protocol.client_frames import ChatroomTarget, Subscribe

ROOM = room_channel("r")


class Asker:
    """A socket of an authenticated user that records its frames."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.session_id = f"sess_{user_id}"
        self.opened_ms = 0
        self.session = Session(self.session_id, GatewaySettings(amqp_url="amqp://unused"), 0.0)
        self.caller = Caller(user_id=user_id)
        self.session.identity = Identity(caller=self.caller, expires_at_ms=2**50, communities=None)
        self.got: list[Any] = []

    def write(self, batch: Batch) -> None:
        self.got += [json.loads(item.data[2 if item.data[1] < 126 else 4 :])["type"] for item in batch.items]

    def subscribed(self, channel: str) -> None:
        self.session.subscriptions.add(channel)

    def unsubscribed(self, channel: str) -> None:
        self.session.subscriptions.discard(channel)

    def hold_until_sent(self, hold: Hold) -> None:
        hold.release()

    def close_for_resume(self) -> None:
        raise AssertionError("no socket is closed here")


class EveryShard:
    """Bindings that reach every shard at once."""

    async def require(self, channel: str) -> None:
        pass

    def release(self, channel: str) -> None:
        pass


class SlowPartition:
    """Runs a step of the test before it answers `subscribe_room`."""

    def __init__(self, *meanwhile: Callable[[], RoomHead]) -> None:
        self._meanwhile = list(meanwhile)

    async def subscribe_room(self, _caller: Caller, _room_id: str) -> RoomHead:
        await asyncio.sleep(0)
        return self._meanwhile.pop(0)()


def no_activity() -> ActivityFeed:
    return ActivityFeed(cast(Backend, None), cast(ShardBindings, EveryShard()), Retries(), asyncio.create_task)


def subscriptions(hub: Hub, partition: SlowPartition) -> Subscriptions:
    membership = ChannelMembership(hub, cast(ShardBindings, EveryShard()))
    backend = cast(Backend, partition)
    missed_items = MissedItems(backend, ByteBudget("test", 2**26, 2**23), asyncio.create_task)
    return Subscriptions(backend, hub, membership, missed_items, no_activity())


async def subscribe(made: Subscriptions, asker: Asker) -> None:
    await made.subscribe(cast(Socket, asker), ChatroomTarget(chatroom_id="r"), "1")


def refused() -> RoomHead:
    raise Refusal.not_found("room")


async def test_room_that_turns_private_during_an_attempt_shows_nothing() -> None:
    hub, asker = Hub(), Asker("stranger")

    def answered_before_it_turned_private() -> RoomHead:
        hub.suspend(ROOM, 1)
        hub.deliver(Delivery(ROOM, DeliveryKind.ORDERED, 1, "", b'{"type":"chat:message"}'), 0.0)
        return RoomHead(seq=0, rev=0, active_now=1)

    made = subscriptions(hub, SlowPartition(answered_before_it_turned_private, refused))
    with pytest.raises(Refusal) as caught:
        await subscribe(made, asker)
    assert caught.value.code is ErrorCode.NOT_FOUND
    hub.schedule.flush(float("inf"))
    assert asker.got == []
    assert hub.channels == {}


async def test_member_asks_again_and_misses_nothing() -> None:
    hub, asker = Hub(), Asker("member")

    def answered_before() -> RoomHead:
        hub.suspend(ROOM, 1)
        hub.deliver(Delivery(ROOM, DeliveryKind.ORDERED, 1, "", b'{"type":"chat:message"}'), 0.0)
        return RoomHead(seq=0, rev=0, active_now=1)

    made = subscriptions(hub, SlowPartition(answered_before, lambda: RoomHead(seq=0, rev=0, active_now=1)))
    await subscribe(made, asker)
    hub.schedule.flush(float("inf"))
    assert asker.got == ["subscribed", "chat:message"]


async def test_direct_message_waits_for_a_subscription_that_has_to_wait_for_its_turn() -> None:
    """Without the expectation the socket would join by the message, and see it before the ones that it missed."""
    hub, asker = Hub(), Asker("ann")
    hub.join(cast(Sink, asker), "user:ann").go_live_unordered(cast(Sink, asker))
    made = subscriptions(hub, SlowPartition(lambda: RoomHead(seq=5, rev=5, active_now=1, is_direct=True)))
    made.expect(cast(Socket, asker), Subscribe(ChatroomTarget(chatroom_id="r")))
    hub.deliver(Delivery("user:ann", DeliveryKind.DIRECT, 6, "r", b'{"type":"chat:message"}'), 0.0)
    hub.schedule.flush(float("inf"))
    assert asker.got == []
    await subscribe(made, asker)
    hub.schedule.flush(float("inf"))
    assert asker.got == ["subscribed", "chat:message"]


async def test_deletion_is_announced_to_listeners_only() -> None:
    hub, member, stranger = Hub(), Asker("member"), Asker("stranger")

    def room_is_deleted() -> RoomHead:
        made.close_room("r")
        return RoomHead(seq=0, rev=0, active_now=1)

    made = subscriptions(hub, SlowPartition(lambda: RoomHead(seq=0, rev=0, active_now=1), room_is_deleted))
    await subscribe(made, member)
    with pytest.raises(Refusal):
        await subscribe(made, stranger)
    assert (member.got, stranger.got) == (["subscribed", "chatroom:deleted", "unsubscribed"], [])
