"""Protocol of `/v1/live` as the client needs it: subscriptions, answers and close codes. Pure.

Names are camelCase on the wire and snake_case here. A test compares these definitions with the server's own.
"""

from datetime import datetime
from enum import IntEnum
from typing import Any, ClassVar

import msgspec

Id = str | int | float

NORMAL_CLOSURE = 1000
ABNORMAL_CLOSURE = 1006


class ServerClose(IntEnum):
    """Close codes of the server that determine the client's reaction."""

    GOING_AWAY = 1001
    UNSUPPORTED = 1003
    TOO_BIG = 1009
    RESTARTING = 1012
    OVERLOADED = 1013
    BAD_FRAMES = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    RATE_ABUSE = 4429


# The client stays closed after these codes: another attempt would fail the same way.
UNRECOVERABLE = frozenset({ServerClose.UNSUPPORTED, ServerClose.TOO_BIG, ServerClose.BAD_FRAMES, ServerClose.FORBIDDEN})


class RoomSubscription(msgspec.Struct, frozen=True, rename="camel"):
    """Messages and events of one room. The application has seen them through seq `since`, or entry `since_rev`."""

    channel: ClassVar[str] = "chatroom"
    chatroom_id: str
    since: int | None = None
    since_rev: int | None = None


class InboxSubscription(msgspec.Struct, frozen=True, rename="camel"):
    """The user's own notifications; `since` is the last `seq` that the application has seen."""

    channel: ClassVar[str] = "notifications"
    user_id: str | None = None
    since: int | None = None


class MarketSubscription(msgspec.Struct, frozen=True, rename="camel"):
    """Prices of the listed symbols, at most `max_rate` (1 to 50) per second per symbol."""

    channel: ClassVar[str] = "market"
    symbols: list[str]
    max_rate: float = 10.0


class CommunitySubscription(msgspec.Struct, frozen=True, rename="camel"):
    """Posts and other events of one community."""

    channel: ClassVar[str] = "community"
    community_id: str


class ActivitySubscription(msgspec.Struct, frozen=True, rename="camel"):
    """New messages and unread counts of all rooms of the user."""

    channel: ClassVar[str] = "activity"


Subscription = RoomSubscription | InboxSubscription | MarketSubscription | CommunitySubscription | ActivitySubscription
_KINDS = (RoomSubscription, InboxSubscription, MarketSubscription, CommunitySubscription, ActivitySubscription)

SUBSCRIPTIONS: dict[str, type[Subscription]] = {kind.channel: kind for kind in _KINDS}


class Frame(msgspec.Struct, frozen=True):
    """One server frame; `id` repeats the `id` of the client frame that it answers."""

    type: str
    data: Any = None
    id: Id | None = None


class Welcome(msgspec.Struct, frozen=True, rename="camel"):
    """Data of `auth:ok`. Times are ISO 8601; `heartbeat_interval` is in milliseconds."""

    server_time: str
    expires_at: str
    heartbeat_interval: int
    max_message_bytes: int

    @property
    def token_lifetime_s(self) -> float:
        """Return the remaining lifetime of the token by the server's clock; the client's clock may be wrong."""
        lifetime = datetime.fromisoformat(self.expires_at) - datetime.fromisoformat(self.server_time)
        return lifetime.total_seconds()


class Ack(msgspec.Struct, frozen=True, rename="camel"):
    """Data of `chat:ack`: the message is on disk, numbered `seq` in its room, and `rev` in the room's log."""

    chatroom_id: str
    seq: int
    rev: int | None = None


class FieldError(msgspec.Struct, frozen=True):
    """Field of a request that the server rejected, and the reason."""

    field: str
    reason: str


class Rejection(msgspec.Struct, frozen=True, rename="camel"):
    """Data of `error`, the answer to a request that the server rejected."""

    code: str
    message: str
    retryable: bool
    retry_after_ms: int | None = None
    details: tuple[FieldError, ...] = ()


_frame_decoder = msgspec.json.Decoder(Frame)


def parse_frame(text: str) -> Frame | None:
    """Return the frame in `text`, or None if `text` is not a frame."""
    try:
        return _frame_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def encode(frame: dict[str, Any]) -> bytes:
    """Return a client frame as compact JSON."""
    return msgspec.json.encode(frame)


def size_bytes(frame: dict[str, Any]) -> int:
    """Return the size of a client frame on the wire."""
    return len(encode(frame))


def fields_of(subscription: Subscription) -> dict[str, Any]:
    """Return the wire fields of `subscription`, without its position."""
    fields = msgspec.to_builtins(subscription).items()
    given = {name: value for name, value in fields if value is not None and name not in ("since", "sinceRev")}
    return {"channel": subscription.channel} | given


def wire_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are given under their names on the wire: `reply_to` as `replyTo`."""
    return {_camel(name): value for name, value in fields.items() if value is not None}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
