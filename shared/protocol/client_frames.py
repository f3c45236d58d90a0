"""Client frames: a text frame in, a typed request out. Pure.

Names are camelCase on the wire and snake_case here. Unknown fields are ignored.
"""

from typing import Annotated, Any, assert_never

import msgspec

from shared.errors import ErrorCode, Malformed, Refusal
from shared.protocol.message_input import EditInput, MessageInput
from shared.protocol.validation import (
    CommunityId,
    FrameId,
    Id,
    Seq,
    ShownUserId,
    UserId,
    decode,
)
from shared.telemetry.traceparent import traceparent_of


class _ClientData(msgspec.Struct, frozen=True, rename="camel"):
    """The base of client data; unknown fields are ignored."""


class ChatroomTarget(_ClientData, frozen=True):
    """A room; `since` resumes after that seq, `sinceRev` after that entry of its log. Either may be given."""

    chatroom_id: Id
    since: Seq | None = None
    since_rev: Seq | None = None


class NotificationsTarget(_ClientData, frozen=True):
    """The user's inbox; `since` resumes after that seq."""

    user_id: ShownUserId | None = None
    since: Seq | None = None


class MarketTarget(_ClientData, frozen=True):
    """The prices of symbols, each at most `max_rate` times per second. An invalid symbol counts as unknown."""

    symbols: Annotated[list[str], msgspec.Meta(min_length=1, max_length=1000)]
    max_rate: Annotated[float, msgspec.Meta(ge=1, le=50)] = 10.0


class CommunityTarget(_ClientData, frozen=True):
    """The events of a community."""

    community_id: CommunityId


class ActivityTarget(_ClientData, frozen=True):
    """New messages and unread counts of all rooms of the user, including direct rooms and rooms joined later."""


Target = ChatroomTarget | NotificationsTarget | MarketTarget | CommunityTarget | ActivityTarget


class Auth(_ClientData, frozen=True):
    """Authenticate, and subscribe at once."""

    token: Annotated[str, msgspec.Meta(min_length=1)]
    subscriptions: list[msgspec.Raw] = []


class Subscribe(_ClientData, frozen=True):
    """Subscribe to a target."""

    target: Target


class Unsubscribe(_ClientData, frozen=True):
    """Unsubscribe from a target."""

    target: Target


class ChatSend(MessageInput, frozen=True, kw_only=True):
    """Send a message into a room."""

    chatroom_id: Id


class ChatDirect(MessageInput, frozen=True, kw_only=True):
    """Send a message to a user."""

    user_id: UserId


class ChatEdit(EditInput, frozen=True, kw_only=True):
    """Edit a message of one's own."""

    chatroom_id: Id
    message_id: Id


class ChatDelete(_ClientData, frozen=True):
    """Delete a message."""

    chatroom_id: Id
    message_id: Id


class ChatReact(_ClientData, frozen=True):
    """Add a reaction to a message, or remove it."""

    chatroom_id: Id
    message_id: Id
    emoji: str
    remove: bool = False


class ChatTyping(_ClientData, frozen=True):
    """Start or stop typing."""

    chatroom_id: Id
    is_typing: bool


class ChatRead(_ClientData, frozen=True):
    """Move the read mark of a room."""

    chatroom_id: Id
    seq: Seq


class PresenceGet(_ClientData, frozen=True):
    """Get the presence of users."""

    user_ids: Annotated[list[ShownUserId], msgspec.Meta(min_length=1, max_length=100)]


class Ping(_ClientData, frozen=True):
    """Ask for a pong."""

    pass


Request = (
    Auth
    | Subscribe
    | Unsubscribe
    | ChatSend
    | ChatDirect
    | ChatEdit
    | ChatDelete
    | ChatReact
    | ChatTyping
    | ChatRead
    | PresenceGet
    | Ping
)


class Incoming(msgspec.Struct, frozen=True):
    """One client frame, decoded. `name` is its `type` as sent; `trace` its W3C traceparent, if it has one."""

    name: str
    request: Request
    id: FrameId | None = None
    trace: str | None = None


class FrameRefused(Refusal):
    """The refusal of a frame, with the frame's `name` and `id` if they could be read."""

    def __init__(self, refusal: Refusal, name: str | None = None, id: FrameId | None = None) -> None:
        super().__init__(refusal.code, refusal.message, details=refusal.details, retry_after_ms=refusal.retry_after_ms)
        self.name = name
        self.id = id


class _Header(msgspec.Struct, frozen=True):
    type: str
    id: FrameId | None = None
    channel: Any = None
    traceparent: Any = None


class _Id(msgspec.Struct, frozen=True):
    id: FrameId | None = None


_header = msgspec.json.Decoder(_Header)
_id_alone = msgspec.json.Decoder(_Id)
REQUESTS: dict[str, type[Request]] = {
    "auth": Auth,
    "chat:send": ChatSend,
    "chat:direct": ChatDirect,
    "chat:edit": ChatEdit,
    "chat:delete": ChatDelete,
    "chat:react": ChatReact,
    "chat:typing": ChatTyping,
    "chat:read": ChatRead,
    "presence:get": PresenceGet,
    "ping": Ping,
}
TARGETS: dict[str, type[Target]] = {
    "chatroom": ChatroomTarget,
    "notifications": NotificationsTarget,
    "market": MarketTarget,
    "community": CommunityTarget,
    "activity": ActivityTarget,
}
_REQUESTS: dict[str, "msgspec.json.Decoder[Any]"] = {name: msgspec.json.Decoder(it) for name, it in REQUESTS.items()}
_TARGETS: dict[str, "msgspec.json.Decoder[Any]"] = {name: msgspec.json.Decoder(it) for name, it in TARGETS.items()}
_PING = Ping()
_SUBSCRIPTIONS: dict[str, type[Subscribe] | type[Unsubscribe]] = {
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
}


def parse(text: str | bytes) -> Incoming:
    """Read one client frame. Raises FrameRefused: BAD_FRAME, UNKNOWN_TYPE, VALIDATION or NOT_FOUND."""
    header = _parse_header(text)
    trace = None if header.traceparent is None else traceparent_of(header.traceparent)
    try:
        if wrap := _SUBSCRIPTIONS.get(header.type):
            return Incoming(header.type, wrap(_parse_target(text, header.channel)), header.id, trace)
        if header.type == "ping":  # it has no fields to read
            return Incoming(header.type, _PING, header.id)
        if (decoder := _REQUESTS.get(header.type)) is None:
            raise Refusal(ErrorCode.UNKNOWN_TYPE, f"type: {header.type[:64]!r} is unknown")
        request: Request = decode(text, decoder)
        if isinstance(request, MessageInput):
            request.check()
        return Incoming(header.type, request, header.id, trace)
    except Refusal as refusal:
        raise FrameRefused(refusal, header.type, header.id) from refusal


def parse_subscription(entry: msgspec.Raw) -> Incoming:
    """Read one entry of `auth.subscriptions`: a subscribe frame, its `type` optional. Raises FrameRefused."""
    try:
        header = decode(bytes(entry), _entry)
    except Refusal as refusal:
        raise FrameRefused(refusal, "subscribe") from refusal
    try:
        if header.type not in (None, "subscribe"):
            raise Refusal.invalid("type", "must be subscribe in an entry of subscriptions")
        return Incoming("subscribe", Subscribe(_parse_target(bytes(entry), header.channel)), header.id)
    except Refusal as refusal:
        raise FrameRefused(refusal, "subscribe", header.id) from refusal


class _EntryHeader(msgspec.Struct, frozen=True):
    type: str | None = None
    id: FrameId | None = None
    channel: Any = None


_entry = msgspec.json.Decoder(_EntryHeader)


def _parse_header(text: str | bytes) -> _Header:
    try:
        return decode(text, _header)
    except Malformed as error:
        raise FrameRefused(Refusal(ErrorCode.BAD_FRAME, str(error))) from error
    except Refusal as refusal:
        bad_id = any(detail.field == "id" for detail in refusal.details)
        code = ErrorCode.VALIDATION if bad_id else ErrorCode.BAD_FRAME
        id = None if bad_id else _id_of(text)
        raise FrameRefused(Refusal(code, refusal.message, details=refusal.details), id=id) from refusal


def _id_of(text: str | bytes) -> FrameId | None:
    """Return the id of an otherwise malformed frame, so that its sender can match the error."""
    try:
        return decode(text, _id_alone).id
    except (Malformed, Refusal):
        return None


def _parse_target(text: str | bytes, channel: object) -> Target:
    if channel is None:
        raise Refusal.invalid("channel", "is missing")
    if not isinstance(channel, str) or channel not in _TARGETS:
        raise Refusal.invalid("channel", f"must be one of {', '.join(_TARGETS)}")
    target: Target = decode(text, _TARGETS[channel])
    if isinstance(target, ChatroomTarget) and target.since is not None and target.since_rev is not None:
        raise Refusal.invalid("sinceRev", "must not be given together with since")
    return target


def channel_name(target: Target) -> str:
    """Return a target's `channel` as clients write it."""
    match target:
        case ChatroomTarget():
            return "chatroom"
        case NotificationsTarget():
            return "notifications"
        case MarketTarget():
            return "market"
        case CommunityTarget():
            return "community"
        case ActivityTarget():
            return "activity"
        case _:
            assert_never(target)
