"""Frames that carry events of internal services. Pure.

The service's data may have more fields than are declared here. All fields are passed on except `seq` and, in a
`notification.created`, `id` and `createdAt`; notifier sets these itself where a frame has them.
"""

from typing import Annotated

from shared.protocol.validation import Time, one_of
from shared.protocol.wire_struct import WireStruct


class NotificationData(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """A notification. `seq` counts the user's inbox; a notification to everybody has none."""

    id: str
    created_at: Time
    title: str
    message: str
    priority: Annotated[str, one_of("low", "medium", "high", "urgent")]
    seq: int | None = None


class PostCreatedData(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """A post in a community that the socket is subscribed to."""

    post_id: str | None = None
    user_id: str | None = None
    community_id: str | None = None
    content: str | None = None


class TradeCreatedData(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """A trade."""

    trade_id: str | None = None
    symbol: str | None = None
    direction: Annotated[str, one_of("buy", "sell")] | None = None
    entry_price: float | None = None


class SessionStartedData(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """A live session began."""

    session_id: str | None = None
    title: str | None = None
    speaker_id: str | None = None
    started_at: Time | None = None


class SessionEndedData(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    """A live session ended."""

    session_id: str | None = None
    ended_at: Time | None = None


EVENT_FRAMES: dict[str, type[WireStruct]] = {
    "notification:new": NotificationData,
    "post:created": PostCreatedData,
    "trade:created": TradeCreatedData,
    "session:started": SessionStartedData,
    "session:ended": SessionEndedData,
}
