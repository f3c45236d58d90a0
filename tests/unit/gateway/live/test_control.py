"""The dispatcher of control deliveries: each kind reaches the part that handles it."""

from typing import Any, cast

import msgspec
import pytest

from gateway.auth.revocations import RevocationListSync
from gateway.fanout.membership import ChannelMembership
from gateway.fanout.recovery import Recovery
from gateway.live.connection_limit import ConnectionLimit
from gateway.live.control import ControlDispatcher
from gateway.live.subscriptions import Subscriptions
from shared.bus.delivery import (
    CONTROL_CHANNEL,
    ControlKind,
    Delivery,
    DeliveryKind,
    Eviction,
    market_channel,
    room_channel,
    user_channel,
)
from shared.commands.notifier import Revocation
from shared.encoding import to_json


class RecordingParts:
    """Stands for every part that the dispatcher calls, and records the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def evict(self, room_id: str, user_id: str, rev: int, reason: str | None) -> None:
        self.calls.append(("evict", room_id, user_id, rev, reason))

    def notify_removed(self, eviction: Eviction, rev: int) -> None:
        self.calls.append(("notify_removed", eviction.chatroom_id, eviction.user_id, rev, eviction.reason))

    def recheck(self, room_id: str) -> None:
        self.calls.append(("recheck", room_id))

    def close_room(self, room_id: str) -> None:
        self.calls.append(("close_room", room_id))

    def observe(self, user_id: str, frame: bytes) -> None:
        self.calls.append(("observe", user_id, frame))

    def learn(self, revocation: Revocation) -> None:
        self.calls.append(("learn", revocation.user_id))


def dispatch(channel: str, key: str, frame: bytes) -> list[tuple[Any, ...]]:
    parts = RecordingParts()
    dispatcher = ControlDispatcher(
        cast(ChannelMembership, parts),
        cast(Recovery, parts),
        cast(Subscriptions, parts),
        cast(ConnectionLimit, parts),
        cast(RevocationListSync, parts),
    )
    dispatcher.dispatch(Delivery(channel, DeliveryKind.CONTROL, 3, key, frame))
    return parts.calls


REMOVAL = b'{"userId":"u","chatroomId":"r","reason":"removed"}'
REVOCATION = to_json(Revocation(user_id="u", version=1))
ROOM = room_channel("r")


@pytest.mark.parametrize(
    ("channel", "kind", "frame", "call"),
    [
        (ROOM, ControlKind.EVICT, b'{"userId":"u"}', ("evict", "r", "u", 3, None)),
        (ROOM, ControlKind.EVICT, b'{"userId":"u","reason":"removed"}', ("evict", "r", "u", 3, "removed")),
        (user_channel("u"), ControlKind.EVICT, REMOVAL, ("notify_removed", "r", "u", 3, "removed")),
        (ROOM, ControlKind.RECHECK, b"{}", ("recheck", "r")),
        (ROOM, ControlKind.ROOM_DELETED, b"{}", ("close_room", "r")),
        (user_channel("u"), ControlKind.CONNECTION_COUNT, b"count", ("observe", "u", b"count")),
        (CONTROL_CHANNEL, ControlKind.REVOCATION, REVOCATION, ("learn", "u")),
    ],
)
def test_each_kind_reaches_its_part(channel: str, kind: ControlKind, frame: bytes, call: tuple[Any, ...]) -> None:
    assert dispatch(channel, kind, frame) == [call]


@pytest.mark.parametrize(
    ("channel", "key"),
    [(ROOM, "a kind of a later release"), ("planet:1", "evict"), (market_channel("EUR"), "evict"), (ROOM, "standing")],
)
def test_unknown_or_misplaced_delivery_is_ignored(channel: str, key: str) -> None:
    assert dispatch(channel, key, b'{"userId":"u"}') == []


def test_unreadable_frame_raises() -> None:
    with pytest.raises(msgspec.DecodeError):
        dispatch(ROOM, ControlKind.EVICT, b"{}")
