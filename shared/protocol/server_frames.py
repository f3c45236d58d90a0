"""Server frames: the `type` of each, and the struct of its `data`. Pure.

`docs/asyncapi.json` is generated from `SERVER_FRAMES`; a struct's docstring describes its frame there.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from shared.encoding import to_json
from shared.errors import RETRYABLE, Detail, ErrorCode, Refusal
from shared.protocol.activity_frames import ACTIVITY_FRAMES, ActivitySubscribedData
from shared.protocol.event_frames import EVENT_FRAMES
from shared.protocol.message_frames import CHANGE_FRAMES, ChangeAckData
from shared.protocol.message_parts import Attachment, ReactionCount, ReplyPreview
from shared.protocol.validation import FrameId, OnlineStatus, Time, one_of
from shared.protocol.wire_struct import WireStruct
from shared.times import now_ms, to_iso

# Answers, messages and prices ---------------------------------------------------------------------------------------


class UserProfile(WireStruct, frozen=True, kw_only=True):
    """The profile shown with a message.

    The name and picture in the token's claims. A field that a `user.updated` event has set replaces the claim. But if
    the token has any of these claims and was issued after the last such event, only its claims are shown.
    """

    first_name: str = ""
    last_name: str = ""
    avatar: str | None = None


class AuthOkData(WireStruct, frozen=True, kw_only=True):
    """The socket is authenticated. The two intervals are in milliseconds."""

    user_id: str
    session_id: str
    server_time: Time
    expires_at: Time
    heartbeat_interval: int  # ms
    connection_timeout: int  # ms
    max_message_bytes: int


class ChatroomSubscribedData(WireStruct, frozen=True, kw_only=True):
    """`recovered` is true if all missed messages (`since`) or entries (`sinceRev`) are replayed; otherwise none are.

    It is false if neither `since` nor `sinceRev` was given, if the given one is beyond the room's head, if the missed
    items that clients would see are more than 1,000 or exceed 8 MB, or if more than 4,000 entries were missed. `seq` is
    the room's last message and `rev` the last entry of its log.
    """

    channel: Literal["chatroom"] = "chatroom"
    chatroom_id: str
    seq: int
    rev: int
    recovered: bool
    replayed: int
    active_now: int


class NotificationsSubscribedData(WireStruct, frozen=True, kw_only=True):
    """`seq` is the last seq of the inbox. `recovered` is false if the missed entries are not replayed."""

    channel: Literal["notifications"] = "notifications"
    user_id: str
    seq: int
    recovered: bool
    replayed: int


class MarketSubscribedData(WireStruct, frozen=True, kw_only=True):
    """The latest price of each of `symbols` follows at once."""

    channel: Literal["market"] = "market"
    symbols: list[str]
    unknown: list[str]


class CommunitySubscribedData(WireStruct, frozen=True, kw_only=True):
    """The community's events follow as they happen."""

    channel: Literal["community"] = "community"
    community_id: str


class ChatAckData(WireStruct, frozen=True, kw_only=True):
    """The message is on disk."""

    chatroom_id: str
    message_id: str
    seq: int
    rev: int
    client_message_id: str | None
    timestamp: Time


class ChatMessageData(WireStruct, frozen=True, kw_only=True):
    """A message. `seq` counts the messages of its room, without gaps; `rev` is that of the entry that stored it.

    Empty optional fields are omitted. A deleted message (a tombstone) has an empty text and `deletedAt`.
    """

    chatroom_id: str
    message_id: str
    user_id: str
    message: str
    timestamp: Time
    seq: int
    rev: int
    client_message_id: str | None
    user: UserProfile
    reply_to: ReplyPreview | UnsetType = UNSET
    mentions: tuple[str, ...] | UnsetType = UNSET
    mention_room: bool | UnsetType = UNSET
    attachments: tuple[Attachment, ...] | UnsetType = UNSET
    symbols: tuple[str, ...] | UnsetType = UNSET
    reactions: tuple[ReactionCount, ...] | UnsetType = UNSET
    edited_at: Time | UnsetType = UNSET
    deleted_at: Time | UnsetType = UNSET
    deleted_by: str | UnsetType = UNSET


class PriceData(WireStruct, frozen=True, omit_defaults=True, kw_only=True):
    """`change` and `changePercent` compare with the close of the previous UTC day, or the first price seen.

    `volume` is that of the UTC day so far. `stale` is true while the price is stale, false once when the price moves
    again, and absent otherwise.
    """

    symbol: str
    price: float
    change: float
    change_percent: float
    timestamp: Time
    seq: int
    bid: float | None = None
    ask: float | None = None
    volume: float | None = None
    stale: bool | None = None


class PongData(WireStruct, frozen=True, kw_only=True):
    """The answer to a ping."""

    server_time: Time


class ErrorData(WireStruct, frozen=True, omit_defaults=True, kw_only=True):
    """The failure of `request`. The socket stays open, unless a close code follows."""

    code: Annotated[str, one_of(*ErrorCode)]
    message: str
    retryable: bool
    request: str | None = None
    retry_after_ms: int | None = None
    details: tuple[Detail, ...] = ()


# Rooms and people ---------------------------------------------------------------------------------------------------


class ReadMark(WireStruct, frozen=True, kw_only=True):
    """A user's read mark in a room."""

    chatroom_id: str
    user_id: str
    seq: int


class TypingMark(WireStruct, frozen=True, kw_only=True):
    """A user started or stopped typing."""

    chatroom_id: str
    user_id: str
    is_typing: bool


class PresenceView(WireStruct, frozen=True, kw_only=True):
    """A user's presence. `last_seen_at` is when they last went offline; null if they never did."""

    user_id: str
    status: OnlineStatus
    last_seen_at: Time | None


class PresenceState(WireStruct, frozen=True, kw_only=True):
    """The presence of users, in the order of the request."""

    users: tuple[PresenceView, ...]


class UnsubscribedData(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """The subscription to this target has ended.

    `reason` states why the server ended the subscription of a room. Every socket of a user who is removed from a room
    receives it, subscribed or not. An unsubscription that the client requested has none.
    """

    channel: Annotated[str, one_of("chatroom", "notifications", "market", "community", "activity")]
    chatroom_id: str | None = None
    user_id: str | None = None
    symbols: tuple[str, ...] | None = None
    community_id: str | None = None
    reason: Annotated[str, one_of("removed", "banned", "deleted")] | None = None


class MemberInvitedData(WireStruct, frozen=True, kw_only=True):
    """`by` made the user of this socket a member of a room."""

    chatroom_id: str
    name: str
    type: Annotated[str, one_of("public", "private", "group")]
    by: str


class MemberJoinedData(WireStruct, frozen=True, kw_only=True):
    """A user became a member of a room that the socket is subscribed to."""

    chatroom_id: str
    user_id: str
    user: UserProfile
    member_count: int


class MemberLeftData(WireStruct, frozen=True, kw_only=True):
    """A user left, or was removed from, a room that the socket is subscribed to."""

    chatroom_id: str
    user_id: str
    member_count: int


class ChatroomUpdatedData(WireStruct, frozen=True, kw_only=True):
    """A room that the socket is subscribed to changed."""

    chatroom_id: str
    name: str
    description: str
    type: Annotated[str, one_of("public", "private", "group")]


class ChatroomDeletedData(WireStruct, frozen=True, kw_only=True):
    """A room was deleted, and with it the subscription: `unsubscribed` follows."""

    chatroom_id: str


class PresenceData(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """A member of a subscribed room, or the partner in a direct room, came online or went offline."""

    user_id: str
    status: OnlineStatus
    last_seen_at: Time | None = None


class RoomPresenceData(WireStruct, frozen=True, kw_only=True):
    """The number of members online in a large room, sent at most every 5 s, instead of each member's changes."""

    chatroom_id: str
    active_now: int


class DrainData(WireStruct, frozen=True, kw_only=True):
    """The server is stopping: reconnect after this many milliseconds, and resume."""

    reconnect_after_ms: int


SERVER_FRAMES: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "auth:ok": (AuthOkData,),
    "subscribed": (
        ChatroomSubscribedData,
        NotificationsSubscribedData,
        MarketSubscribedData,
        CommunitySubscribedData,
        ActivitySubscribedData,
    ),
    "unsubscribed": (UnsubscribedData,),
    "pong": (PongData,),
    "error": (ErrorData,),
    "chat:ack": (ChatAckData, ChangeAckData),
    "chat:message": (ChatMessageData,),
    **{type_: (data,) for type_, data in CHANGE_FRAMES.items()},
    "chat:typing": (TypingMark,),
    "chat:read": (ReadMark,),
    "presence:state": (PresenceState,),
    "user:online": (PresenceData,),
    "user:offline": (PresenceData,),
    "room:presence": (RoomPresenceData,),
    "member:joined": (MemberJoinedData,),
    "member:left": (MemberLeftData,),
    "member:invited": (MemberInvitedData,),
    "chatroom:updated": (ChatroomUpdatedData,),
    "chatroom:deleted": (ChatroomDeletedData,),
    **{type_: (data,) for type_, data in ACTIVITY_FRAMES.items()},
    "market:price": (PriceData,),
    **{type_: (data,) for type_, data in EVENT_FRAMES.items()},
    "server:drain": (DrainData,),
}


# Encoding -----------------------------------------------------------------------------------------------------------


def frame(type_: str, data: Any, id: FrameId | None = None) -> bytes:
    """Return a server frame as JSON: `type`, `data`, and the `id` of the frame that it answers."""
    if id is None:
        return to_json({"type": type_, "data": data})
    return to_json({"type": type_, "id": id, "data": data})


def error_frame(refusal: Refusal, request: str | None = None, id: FrameId | None = None) -> bytes:
    """Return an `error` frame."""
    data = ErrorData(
        code=refusal.code,
        message=refusal.message,
        retryable=refusal.code in RETRYABLE,
        request=request,
        retry_after_ms=refusal.retry_after_ms,
        details=refusal.details,
    )
    return frame("error", data, id)


def pong_frame(id: FrameId | None) -> bytes:
    """Return the answer to `ping`."""
    return frame("pong", PongData(server_time=to_iso(now_ms())), id)
