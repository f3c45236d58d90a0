"""Every frame that the server sends: its `type`, and what its `data` is. Pure; source: protocol.md.

What answers a client's frame, and messages and prices, stand in `shared.protocol`; here are the events.
The AsyncAPI document is made of `SERVER_FRAMES`; the docstring of a struct says what its frame means.
"""

from typing import Annotated

import msgspec

from shared.chat_commands import PresenceState, ReadMark, TypingMark
from shared.protocol import (
    AuthOkData,
    ChatAckData,
    ChatMessageData,
    ChatroomSubscribedData,
    CommunitySubscribedData,
    ErrorData,
    MarketSubscribedData,
    NotificationsSubscribedData,
    Out,
    PongData,
    PriceData,
    UserProfile,
)
from shared.validation import OnlineStatus, Time, one_of

# Rooms and people ---------------------------------------------------------------------------------------------------


class UnsubscribedData(Out, frozen=True, kw_only=True, omit_defaults=True):
    """Nothing more comes from what these name."""

    channel: Annotated[str, one_of("chatroom", "notifications", "market", "community")]
    chatroom_id: str | None = None
    user_id: str | None = None
    symbols: tuple[str, ...] | None = None
    community_id: str | None = None


class MemberJoinedData(Out, frozen=True, kw_only=True):
    """A user has become a member of a room that the socket is subscribed to."""

    chatroom_id: str
    user_id: str
    user: UserProfile
    member_count: int


class MemberLeftData(Out, frozen=True, kw_only=True):
    """A user has left, or was removed from, a room that the socket is subscribed to."""

    chatroom_id: str
    user_id: str
    member_count: int


class ChatroomUpdatedData(Out, frozen=True, kw_only=True):
    """A room that the socket is subscribed to was changed."""

    chatroom_id: str
    name: str
    description: str
    type: Annotated[str, one_of("public", "private", "group")]


class ChatroomDeletedData(Out, frozen=True, kw_only=True):
    """A room is gone, and so is the subscription to it."""

    chatroom_id: str


class PresenceData(Out, frozen=True, kw_only=True, omit_defaults=True):
    """A member of a room that the socket is subscribed to came online, or went offline."""

    user_id: str
    status: OnlineStatus
    last_seen_at: Time | None = None


class DrainData(Out, frozen=True, kw_only=True):
    """The server is leaving: connect again after so many milliseconds, and resume."""

    reconnect_after_ms: int


# What internal services tell; it is passed on as it came, and may have more than these ------------------------------


class NotificationData(Out, frozen=True, kw_only=True, omit_defaults=True):
    """A notification. `seq` counts the user's inbox; one that went to all has none."""

    id: str
    created_at: Time
    title: str
    message: str
    priority: Annotated[str, one_of("low", "medium", "high", "urgent")]
    seq: int | None = None


class PostCreatedData(Out, frozen=True, kw_only=True, omit_defaults=True):
    """A post in a community that the socket is subscribed to."""

    post_id: str | None = None
    user_id: str | None = None
    community_id: str | None = None
    content: str | None = None


class TradeCreatedData(Out, frozen=True, kw_only=True, omit_defaults=True):
    """A trade."""

    trade_id: str | None = None
    symbol: str | None = None
    direction: Annotated[str, one_of("buy", "sell")] | None = None
    entry_price: float | None = None


class SessionStartedData(Out, frozen=True, kw_only=True, omit_defaults=True):
    """A live session has begun."""

    session_id: str | None = None
    title: str | None = None
    speaker_id: str | None = None
    started_at: Time | None = None


class SessionEndedData(Out, frozen=True, kw_only=True, omit_defaults=True):
    """A live session is over."""

    session_id: str | None = None
    ended_at: Time | None = None


SERVER_FRAMES: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "auth:ok": (AuthOkData,),
    "subscribed": (
        ChatroomSubscribedData,
        NotificationsSubscribedData,
        MarketSubscribedData,
        CommunitySubscribedData,
    ),
    "unsubscribed": (UnsubscribedData,),
    "pong": (PongData,),
    "error": (ErrorData,),
    "chat:ack": (ChatAckData,),
    "chat:message": (ChatMessageData,),
    "chat:typing": (TypingMark,),
    "chat:read": (ReadMark,),
    "presence:state": (PresenceState,),
    "user:online": (PresenceData,),
    "user:offline": (PresenceData,),
    "member:joined": (MemberJoinedData,),
    "member:left": (MemberLeftData,),
    "chatroom:updated": (ChatroomUpdatedData,),
    "chatroom:deleted": (ChatroomDeletedData,),
    "market:price": (PriceData,),
    "notification:new": (NotificationData,),
    "post:created": (PostCreatedData,),
    "trade:created": (TradeCreatedData,),
    "session:started": (SessionStartedData,),
    "session:ended": (SessionEndedData,),
    "server:drain": (DrainData,),
}

# Frames whose data an internal service has the last word on: it may have fields beyond those above.
PASSED_ON = frozenset({"notification:new", "post:created", "trade:created", "session:started", "session:ended"})
