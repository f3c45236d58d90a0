"""Server frames of the channel `activity`. Pure."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from shared.protocol.validation import Time
from shared.protocol.wire_struct import WireStruct

ROOMS_SHOWN_MAX = 200


class ActivityRoom(WireStruct, frozen=True, kw_only=True):
    """A room of the caller: its last message, the messages after the read mark, and those that mention the caller."""

    chatroom_id: str
    seq: int
    unread_count: int
    mention_count: int
    last_message_at: Time | UnsetType = UNSET


class ActivitySubscribedData(WireStruct, frozen=True, kw_only=True):
    """The 200 rooms with the most recent messages, and the totals over all rooms of the caller."""

    channel: Literal["activity"] = "activity"
    rooms: tuple[ActivityRoom, ...]
    unread_total: int
    mention_total: int


class ActiveRoom(WireStruct, frozen=True, kw_only=True):
    """A room with new messages: `latest` is the seq of the newest, `at` its time."""

    chatroom_id: str
    at: Time
    latest: int


class RoomActivityData(WireStruct, frozen=True, kw_only=True):
    """Rooms of the caller with new messages, at most once a second."""

    rooms: tuple[ActiveRoom, ...]


class RoomUnreadData(WireStruct, frozen=True, kw_only=True):
    """The messages of a room after the caller's read mark, and those among them that mention the caller or everyone."""

    chatroom_id: str
    unread_count: int
    mention_count: int


ACTIVITY_FRAMES: dict[str, type[msgspec.Struct]] = {
    "room:activity": RoomActivityData,
    "room:unread": RoomUnreadData,
}
