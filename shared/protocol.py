"""The WebSocket protocol: client frames in, server frames out. Pure; source: protocol.md, «WebSocket».

`parse` turns one text frame into a typed request; the `…Data` structs are the `data` of server frames.
Names on the wire are camelCase, here snake_case.
"""

from typing import Annotated, Any, Literal, assert_never

import msgspec

from shared.encoding import to_json
from shared.errors import RETRYABLE, Detail, ErrorCode, Malformed, Refusal
from shared.times import now_ms, to_iso
from shared.validation import ClientMessageId, Id, MessageText, Seq, Symbol, Time, decode, one_of

FrameId = str | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float  # what can be written again


class CloseCode:
    """Why the server closes a socket, and so what the client should do."""

    GOING_AWAY = 1001
    UNSUPPORTED = 1003
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTARTING = 1012
    OVERLOADED = 1013
    BAD_FRAMES = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    SILENT = 4408
    SLOW = 4413
    RATE_ABUSE = 4429


# Client frames ------------------------------------------------------------------------------------------------------


class _In(msgspec.Struct, frozen=True, rename="camel"):
    """What a client sent; fields that we do not know are passed over."""


class ChatroomTarget(_In, frozen=True):
    chatroom_id: Id
    since: Seq | None = None


class NotificationsTarget(_In, frozen=True):
    user_id: Id | None = None
    since: Seq | None = None


class MarketTarget(_In, frozen=True):
    symbols: Annotated[list[Symbol], msgspec.Meta(min_length=1, max_length=1000)]
    max_rate: Annotated[float, msgspec.Meta(ge=1, le=50)] = 10.0


class CommunityTarget(_In, frozen=True):
    community_id: Id


Target = ChatroomTarget | NotificationsTarget | MarketTarget | CommunityTarget


class Auth(_In, frozen=True):
    token: Annotated[str, msgspec.Meta(min_length=1)]
    subscriptions: list[msgspec.Raw] = []


class Subscribe(_In, frozen=True):
    target: Target


class Unsubscribe(_In, frozen=True):
    target: Target


class ChatSend(_In, frozen=True):
    chatroom_id: Id
    message: MessageText
    client_message_id: ClientMessageId | None = None


class ChatDirect(_In, frozen=True):
    user_id: Id
    message: MessageText
    client_message_id: ClientMessageId | None = None


class ChatTyping(_In, frozen=True):
    chatroom_id: Id
    is_typing: bool


class ChatRead(_In, frozen=True):
    chatroom_id: Id
    seq: Seq


class PresenceGet(_In, frozen=True):
    user_ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=100)]


class Ping(_In, frozen=True):
    pass


Request = Auth | Subscribe | Unsubscribe | ChatSend | ChatDirect | ChatTyping | ChatRead | PresenceGet | Ping


class Incoming(msgspec.Struct, frozen=True):
    """One client frame, understood. `name` is its `type` as sent."""

    name: str
    request: Request
    id: FrameId | None = None


class FrameRefused(Refusal):
    """A frame that is not taken; `name` and `id` are those of the frame as far as they could be read."""

    def __init__(self, refusal: Refusal, name: str | None = None, id: FrameId | None = None) -> None:
        super().__init__(refusal.code, refusal.message, details=refusal.details, retry_after_ms=refusal.retry_after_ms)
        self.name = name
        self.id = id


class _Header(msgspec.Struct, frozen=True):
    type: str
    id: FrameId | None = None
    channel: Any = None


class _Id(msgspec.Struct, frozen=True):
    id: FrameId | None = None


_header = msgspec.json.Decoder(_Header)
_id_alone = msgspec.json.Decoder(_Id)
REQUESTS: dict[str, type[Request]] = {
    "auth": Auth,
    "chat:send": ChatSend,
    "chat:direct": ChatDirect,
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
}
_REQUESTS: dict[str, "msgspec.json.Decoder[Any]"] = {name: msgspec.json.Decoder(it) for name, it in REQUESTS.items()}
_TARGETS: dict[str, "msgspec.json.Decoder[Any]"] = {name: msgspec.json.Decoder(it) for name, it in TARGETS.items()}
_SUBSCRIPTIONS: dict[str, type[Subscribe] | type[Unsubscribe]] = {
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
}


def parse(text: str | bytes) -> Incoming:
    """Read one client frame. Raises FrameRefused: BAD_FRAME, UNKNOWN_TYPE or VALIDATION."""
    header = _parse_header(text)
    try:
        if wrap := _SUBSCRIPTIONS.get(header.type):
            return Incoming(header.type, wrap(_parse_target(text, header.channel)), header.id)
        if (decoder := _REQUESTS.get(header.type)) is None:
            raise Refusal(ErrorCode.UNKNOWN_TYPE, f"type: {header.type[:64]!r} is not known")
        return Incoming(header.type, decode(text, decoder), header.id)
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
            raise Refusal.invalid("type", "an entry of subscriptions is a subscribe frame")
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
    """The id of what is no frame for another reason, so that its sender knows what is answered."""
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
    return target


def channel_name(target: Target) -> str:
    """The `channel` word of a target, as clients write it."""
    match target:
        case ChatroomTarget():
            return "chatroom"
        case NotificationsTarget():
            return "notifications"
        case MarketTarget():
            return "market"
        case CommunityTarget():
            return "community"
        case _:
            assert_never(target)


# Server frames ------------------------------------------------------------------------------------------------------


class Out(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The `data` of a server frame, or a part of it."""


class UserProfile(Out, frozen=True, kw_only=True):
    """How a person is shown beside a message; from the token's claims or the last `user.updated`."""

    first_name: str = ""
    last_name: str = ""
    avatar: str | None = None


class AuthOkData(Out, frozen=True, kw_only=True):
    """The socket is the user's now. The two intervals are in milliseconds."""

    user_id: str
    session_id: str
    server_time: Time
    expires_at: Time
    heartbeat_interval: int  # ms
    connection_timeout: int  # ms
    max_message_bytes: int


class ChatroomSubscribedData(Out, frozen=True, kw_only=True):
    """`recovered` is False when more than 1,000 messages were missed: then none is replayed."""

    channel: Literal["chatroom"] = "chatroom"
    chatroom_id: str
    seq: int
    recovered: bool
    replayed: int
    active_now: int


class NotificationsSubscribedData(Out, frozen=True, kw_only=True):
    """`seq` is the last of the inbox; `recovered` is False when what was missed is not replayed."""

    channel: Literal["notifications"] = "notifications"
    user_id: str
    seq: int
    recovered: bool
    replayed: int


class MarketSubscribedData(Out, frozen=True, kw_only=True):
    """Of each of `symbols` the latest price follows at once."""

    channel: Literal["market"] = "market"
    symbols: list[str]
    unknown: list[str]


class CommunitySubscribedData(Out, frozen=True, kw_only=True):
    """Its events follow as they come."""

    channel: Literal["community"] = "community"
    community_id: str


class ChatAckData(Out, frozen=True, kw_only=True):
    """The message is on disk."""

    chatroom_id: str
    message_id: str
    seq: int
    client_message_id: str | None
    timestamp: Time


class ChatMessageData(Out, frozen=True, kw_only=True):
    """A message. `seq` counts the messages of its room, without gaps."""

    chatroom_id: str
    message_id: str
    user_id: str
    message: str
    timestamp: Time
    seq: int
    client_message_id: str | None
    user: UserProfile


class PriceData(Out, frozen=True, omit_defaults=True, kw_only=True):
    """`change` and `changePercent` are against the close of the previous UTC day, or the first price seen.

    `volume` is that of the UTC day so far. `stale` is True once when the source has fallen silent, and False once when
    the price moves again.
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


class PongData(Out, frozen=True, kw_only=True):
    """The server lives."""

    server_time: Time


class ErrorData(Out, frozen=True, omit_defaults=True, kw_only=True):
    """What went wrong with `request`. The socket stays open, unless a close code follows."""

    code: Annotated[str, one_of(*ErrorCode)]
    message: str
    retryable: bool
    request: str | None = None
    retry_after_ms: int | None = None
    details: tuple[Detail, ...] = ()


def frame(type_: str, data: Any, id: FrameId | None = None) -> bytes:
    """A server frame as JSON: `type`, `data`, and the `id` of the frame that it answers."""
    if id is None:
        return to_json({"type": type_, "data": data})
    return to_json({"type": type_, "id": id, "data": data})


def error_frame(refusal: Refusal, request: str | None = None, id: FrameId | None = None) -> bytes:
    """An `error` frame."""
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
    """The answer to `ping`."""
    return frame("pong", PongData(server_time=to_iso(now_ms())), id)
