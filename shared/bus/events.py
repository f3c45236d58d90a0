"""Events of internal services: CloudEvents 1.0 as JSON on the exchange `realtime.events`. Pure.

docs/internal-events.md describes them.
"""

import hashlib
from typing import Annotated, Any

import msgspec
import orjson

from shared.encoding import to_json
from shared.errors import Malformed, Refusal
from shared.protocol.validation import decode
from shared.telemetry.traceparent import traceparent_of
from shared.times import from_iso

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
EventType = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+\Z", max_length=128)]

MARKET_TICK = "market.tick"
USER_UPDATED = "user.updated"
USER_REVOKED = "user.revoked"
USER_BANNED = "user.banned"
NOTIFICATION_CREATED = "notification.created"
POST_CREATED = "post.created"
TRADE_CREATED = "trade.created"
SESSION_STARTED = "session.started"
SESSION_ENDED = "session.ended"

NOTIFICATION_NEW = "notification:new"

SHORT_KEY_BYTES = 8


class CloudEvent(msgspec.Struct, frozen=True):
    """A CloudEvent. `data` is a JSON object; for market.tick it may also be an array of objects.

    `traceparent` is CloudEvents' extension for distributed tracing.
    """

    specversion: Annotated[str, msgspec.Meta(pattern=r"^1\.0\Z")]
    id: Name
    source: Name
    type: EventType
    data: dict[str, Any] | list[dict[str, Any]]
    time: str | None = None
    audience: str | None = None
    traceparent: Any = None

    @property
    def trace(self) -> str | None:
        """Return the trace that the event continues."""
        return traceparent_of(self.traceparent)


_decoder = msgspec.json.Decoder(CloudEvent)


def decode_event(body: bytes) -> CloudEvent:
    """Read one event. Raises Malformed, which names the field and the reason."""
    try:
        event = decode(body, _decoder)
        orjson.dumps(event.data)  # refuses integers beyond 64 bits and deep nesting, which few readers can parse
    except Refusal as refusal:
        raise Malformed(refusal.message) from refusal
    except TypeError as error:
        raise Malformed(f"data: {error}") from error
    if event.type != MARKET_TICK and not isinstance(event.data, dict):
        raise Malformed("data: must be an object")
    event_time_ms(event)
    return event


def event_time_ms(event: CloudEvent) -> int | None:
    """Return the time that the event carries, in ms since 1970, or None. Raises Malformed."""
    return None if event.time is None else parse_time_ms(event.time, "time")


def parse_time_ms(text: str, field: str) -> int:
    """Parse an RFC 3339 time of an event, in ms since 1970. Raises Malformed, which names the field."""
    try:
        return from_iso(text.upper())  # RFC 3339 allows a small t and z
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{field}: is not an RFC 3339 time with an offset") from error


def event_key(event: CloudEvent) -> str:
    """Return 32 hex digits that identify an event: its source and id, which CloudEvents keep unique together."""
    return event_key_of(event.source, event.id)


def event_key_of(source: str, event_id: str) -> str:
    """Return the key of an event with this source and id."""
    return hashlib.blake2b(to_json([source, event_id]), digest_size=16).hexdigest()


def short_event_key(source: str, event_id: str) -> bytes:
    """Return 8 bytes that identify an event. The market journal keeps many thousands of them in one document.

    Escaping keeps NUL out of the source, so the first NUL is the separator.
    """
    escaped = source.replace("\1", "\1\1").replace("\0", "\1\2")
    return hashlib.blake2b(f"{escaped}\0{event_id}".encode(), digest_size=SHORT_KEY_BYTES).digest()


def split_events(body: bytes) -> list[bytes]:
    """Return the events of one AMQP body: one per line if its first or last line is JSON, else the whole body.

    A pretty-printed event has no line at either end that is JSON alone; any other body of several lines holds one event
    per line, one of which may be malformed.
    """
    lines = body.strip().split(b"\n")
    if len(lines) > 1 and (_is_json(lines[0]) or _is_json(lines[-1])):
        return [line for line in lines if line.strip()]
    return [body]


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def client_type(event_type: str) -> str:
    """Return the frame type of an event type: `post.created` gives `post:created`.

    `notification.created` is `notification:new` to clients.
    """
    if event_type == NOTIFICATION_CREATED:
        return NOTIFICATION_NEW
    return event_type.replace(".", ":")
