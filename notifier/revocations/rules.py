"""Revoked tokens and bans. Pure; docs/internal-events.md describes the events.

`user.revoked` `{userId}` revokes all tokens issued before it. `user.banned` `{userId, until?}` bans the user until then
(RFC 3339), or permanently without `until`; a later event overrides, and a time in the past ends the ban.
"""

import msgspec

from notifier.events.notifications import Record, happened_at_ms
from shared.bus.events import USER_BANNED, USER_REVOKED, CloudEvent, event_key, parse_time_ms
from shared.commands.notifier import FOR_EVER_MS, Revocation
from shared.errors import Malformed
from shared.protocol.validation import UserId, detail_of

REVOCATION_TYPES = frozenset({USER_REVOKED, USER_BANNED})


class RevocationEvent(msgspec.Struct, frozen=True):
    """One event against a user. Without `banned_until_ms` it revokes the tokens issued before `at_ms`."""

    key: str
    at_ms: int
    user_id: str
    banned_until_ms: int | None

    def to_record(self) -> Record:
        """Return the record of the event that is stored when its processing begins."""
        return Record(self.key, self.at_ms)

    def resumed(self, record: Record) -> "RevocationEvent":
        """Return the event with the time of an earlier attempt."""
        return msgspec.structs.replace(self, at_ms=record.created_at_ms)


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    user_id: UserId
    until: str | None = None


def read_revocation_event(event: CloudEvent, now_ms: int) -> RevocationEvent:
    """Return the revocation event. Raises Malformed, which names the field and the reason."""
    if event.type not in REVOCATION_TYPES:
        raise Malformed(f"type: {event.type} needs the routing key {event.type}")
    try:
        data = msgspec.convert(event.data, _Data)
    except msgspec.ValidationError as error:
        detail = detail_of(error)
        raise Malformed(f"data.{detail.field}: {detail.reason}") from error
    until_ms = None if event.type == USER_REVOKED else _until_ms(data.until)
    return RevocationEvent(event_key(event), happened_at_ms(event, now_ms), data.user_id, until_ms)


def apply(event: RevocationEvent, stored: Revocation | None, version: int) -> Revocation:
    """Return the user's revocation after the event. Idempotent except for the version."""
    before = stored or Revocation(user_id=event.user_id, version=0)
    if event.banned_until_ms is None:
        issued_before_ms = max(before.issued_before_ms, event.at_ms)
        return msgspec.structs.replace(before, version=version, issued_before_ms=issued_before_ms)
    return msgspec.structs.replace(before, version=version, banned_until_ms=event.banned_until_ms)


def _until_ms(until: str | None) -> int:
    if until is None:
        return FOR_EVER_MS
    return min(max(parse_time_ms(until, "data.until"), 0), FOR_EVER_MS)
