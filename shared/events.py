"""Events of internal services: CloudEvents 1.0 JSON on the exchange `realtime.events`. Pure; source: protocol.md."""

from typing import Annotated, Any

import msgspec

from shared.encoding import to_json
from shared.errors import Malformed, Refusal
from shared.validation import Id, decode

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
EventType = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$", max_length=128)]

MARKET_TICK = "market.tick"
USER_UPDATED = "user.updated"
USER_REVOKED = "user.revoked"
USER_BANNED = "user.banned"
NOTIFICATION_CREATED = "notification.created"
POST_CREATED = "post.created"
TRADE_CREATED = "trade.created"
SESSION_STARTED = "session.started"
SESSION_ENDED = "session.ended"


class Event(msgspec.Struct, frozen=True):
    """A CloudEvent. `data` is a JSON object, or for market.tick also an array of them."""

    specversion: Annotated[str, msgspec.Meta(pattern=r"^1\.0$")]
    id: Name
    source: Name
    type: EventType
    data: dict[str, Any] | list[dict[str, Any]]
    time: str | None = None
    audience: str | None = None


class UserRef(msgspec.Struct, frozen=True, rename="camel"):
    """The part of an event's data that names a user."""

    user_id: Id


_decoder = msgspec.json.Decoder(Event)


def decode_event(body: bytes) -> Event:
    """Read one event. Raises Malformed with the field and the reason."""
    try:
        event = decode(body, _decoder)
        to_json(event.data)  # what cannot be written again (integers beyond 64 bits) is refused here, not in delivery
    except Refusal as refusal:
        raise Malformed(refusal.message) from refusal
    except TypeError as error:
        raise Malformed(f"data: {error}") from error
    if event.type != MARKET_TICK and not isinstance(event.data, dict):
        raise Malformed("data: must be an object")
    return event


def split_events(body: bytes) -> list[bytes]:
    """The events of one AMQP body: the body itself when it is one JSON value, else one event a line."""
    if b"\n" not in body.strip():
        return [body]
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return [line for line in body.split(b"\n") if line.strip()]
    return [body]


def client_type(event_type: str) -> str:
    """`post.created` → `post:created`; `notification.created` is `notification:new` to clients."""
    if event_type == NOTIFICATION_CREATED:
        return "notification:new"
    return event_type.replace(".", ":")
