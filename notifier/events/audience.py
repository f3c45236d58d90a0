"""The audience of an event. Pure; docs/internal-events.md describes the syntax."""

import re
from typing import Any

import msgspec

from shared.bus.delivery import ALL_CHANNEL, community_channel, room_channel
from shared.bus.events import (
    NOTIFICATION_CREATED,
    POST_CREATED,
    SESSION_ENDED,
    SESSION_STARTED,
    TRADE_CREATED,
    CloudEvent,
)
from shared.errors import Malformed
from shared.protocol.validation import FOREIGN_ID_PATTERN, ID_PATTERN, USER_ID_PATTERN, percent_decoded

USERS_MAX = 10_000

_room_id = re.compile(ID_PATTERN)
_user_id = re.compile(USER_ID_PATTERN)
_community_id = re.compile(FOREIGN_ID_PATTERN)


class Users(msgspec.Struct, frozen=True):
    """The inboxes of these users, each named once."""

    ids: tuple[str, ...]


class Listeners(msgspec.Struct, frozen=True):
    """The current subscribers of a channel."""

    channel: str


Audience = Users | Listeners


def audience_of(event: CloudEvent) -> Audience:
    """Return the audience that the event names, otherwise the default of its type. Raises Malformed."""
    return parse_audience(event.audience if event.audience is not None else _default(event.type, event.data))


def parse_audience(text: str) -> Audience:
    """Parse `user:<id>`, `users:<id>,<id>,…`, `room:<id>`, `community:<id>` or `all`. Raises Malformed.

    In a list, each id is percent-encoded.
    """
    kind, _, rest = text.partition(":")
    match kind:
        case "all" if text == "all":
            return Listeners(ALL_CHANNEL)
        case "user":
            return Users((_checked(rest, _user_id),))
        case "users":
            return Users(_checked_list(rest))
        case "room":
            return Listeners(room_channel(_checked(rest, _room_id)))
        case "community":
            return Listeners(community_channel(_checked(rest, _community_id)))
        case _:
            raise Malformed("audience: must be user:<id>, users:<id>,<id>,…, room:<id>, community:<id> or all")


def _default(event_type: str, data: Any) -> str:
    if event_type == POST_CREATED:
        return f"community:{_named(data, 'communityId', _community_id)}"
    if event_type == NOTIFICATION_CREATED:
        return f"user:{_named(data, 'userId', _user_id)}"
    if event_type in {TRADE_CREATED, SESSION_STARTED, SESSION_ENDED}:
        return "all"
    raise Malformed(f"audience: is missing, and {event_type} has no default")


def _named(data: dict[str, Any], field: str, syntax: re.Pattern[str]) -> str:
    value = data.get(field)
    if not isinstance(value, str) or not syntax.match(value):
        raise Malformed(f"data.{field}: {'is missing' if value is None else 'is not an id'}, and there is no audience")
    return value


def _checked(id_: str, syntax: re.Pattern[str]) -> str:
    if not syntax.match(id_):
        raise Malformed(f"audience: {id_[:64]!r} is not an id")
    return id_


def _checked_list(text: str) -> tuple[str, ...]:
    names = text.split(",")
    if len(names) > USERS_MAX:
        raise Malformed(f"audience: names {len(names)} users; at most {USERS_MAX} are allowed")
    return tuple(dict.fromkeys(_checked(percent_decoded(name), _user_id) for name in names))
