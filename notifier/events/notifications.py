"""Validation of events, and their client frames. Pure.

A notice is the same for its whole audience. Each frame of an inbox entry puts the fields of the entry (`seq`, a
notification's `id`) in front of the encoded data, so that 10,000 frames cost 10,000 joins and no encoding. Live and
replayed frames come from the same functions, so they are equal.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Protocol, Self, TypeVar

import msgspec

from notifier.events.audience import Audience, Users, audience_of
from shared.bus.events import NOTIFICATION_NEW, CloudEvent, client_type, event_key, event_time_ms
from shared.commands.notifier import NotificationView
from shared.encoding import to_json
from shared.errors import Malformed, Refusal
from shared.ids import Prefix, dated_id
from shared.protocol.validation import refusal_of
from shared.times import to_iso

DATA_MAX_BYTES = 256 * 1024  # a socket's queue holds 1 MB: larger data would close it

_SEQ = "seq"
_SET_BY_NOTIFIER = frozenset({"id", _SEQ, "createdAt"})


class Priority(StrEnum):
    """The urgency of a notification."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    URGENT = "urgent"


class NotificationFields(msgspec.Struct, frozen=True):
    """The required data of a notification.created."""

    title: str
    message: str
    priority: Priority | None = None  # MEDIUM


class _Shown(msgspec.Struct, frozen=True):
    """The fields of a notification that REST shows in addition to its data."""

    title: str | None = None
    message: str | None = None
    priority: str | None = None


class Notice(msgspec.Struct, frozen=True):
    """The content of an event for clients. `key` identifies the event; `data` is a JSON object."""

    key: str
    type: str  # of the client frame
    created_at_ms: int
    data: bytes


class Record(msgspec.Struct, frozen=True):
    """A known event, with its `notice` if the notice goes to inboxes."""

    key: str
    created_at_ms: int
    notice: Notice | None = None
    is_done: bool = False


class TrackedEvent(Protocol):
    """An event in the form that its consumer processes."""

    @property
    def key(self) -> str:
        """Return the key of the event."""

    def to_record(self) -> Record:
        """Return the record of the event that is stored when its processing begins."""

    def resumed(self, record: Record) -> Self:
        """Return the event as an earlier attempt recorded it."""


E = TypeVar("E", bound=TrackedEvent)


class Addressed(msgspec.Struct, frozen=True):
    """A notice and its audience. `trace` is the W3C traceparent of the event."""

    notice: Notice
    audience: Audience
    trace: str | None = None

    @property
    def key(self) -> str:
        """Return the key of the event."""
        return self.notice.key

    def to_record(self) -> Record:
        """Return the record of the event, with its notice if the notice goes to inboxes."""
        notice = self.notice
        return Record(notice.key, notice.created_at_ms, notice if isinstance(self.audience, Users) else None)

    def resumed(self, record: Record) -> "Addressed":
        """Return the event with the notice of an earlier attempt, or at least with its time."""
        notice = record.notice or msgspec.structs.replace(self.notice, created_at_ms=record.created_at_ms)
        return Addressed(notice, self.audience, self.trace)


def pending_of(events: Iterable[E], records: Mapping[str, Record]) -> list[E]:
    """Return the events that are not done, as an earlier attempt recorded them if there was one."""
    pending: list[E] = []
    for event in events:
        record = records.get(event.key)
        if record is None:
            pending.append(event)
        elif not record.is_done:
            pending.append(event.resumed(record))
    return pending


class Entry(msgspec.Struct, frozen=True):
    """The place of a notice in one user's inbox."""

    id: str
    key: str
    user_id: str
    seq: int
    read_at_ms: int | None = None


def address(event: CloudEvent, now_ms: int) -> Addressed:
    """Return an event's content and audience. Raises Malformed, which names the field and the reason."""
    audience = audience_of(event)
    type_ = client_type(event.type)
    data = to_json(_checked_data(type_, event.data))
    if len(data) > DATA_MAX_BYTES:
        raise Malformed(f"data: is larger than {DATA_MAX_BYTES} bytes")
    return Addressed(Notice(event_key(event), type_, happened_at_ms(event, now_ms), data), audience, event.trace)


def happened_at_ms(event: CloudEvent, now_ms: int) -> int:
    """Return the event's time, at most `now_ms`, which is also the default. Raises Malformed."""
    at_ms = event_time_ms(event)
    return now_ms if at_ms is None or at_ms < 0 else min(at_ms, now_ms)


def _checked_data(type_: str, data: Any) -> dict[str, Any]:
    if type_ != NOTIFICATION_NEW:
        return {name: value for name, value in data.items() if name != _SEQ}
    try:
        fields = msgspec.convert(data, NotificationFields)
    except msgspec.ValidationError as error:
        raise _malformed(refusal_of(error)) from error
    passed_through = {name: value for name, value in data.items() if name not in _SET_BY_NOTIFIER}
    priority = fields.priority or Priority.MEDIUM
    return passed_through | {"title": fields.title, "message": fields.message, "priority": priority.value}


def _malformed(refusal: Refusal) -> Malformed:
    return Malformed(f"data.{refusal.message}")


def without_text(notice: Notice) -> Notice:
    """Return the notice of a notification without its text, because the message that it reports is deleted."""
    data = msgspec.json.decode(notice.data)
    return msgspec.structs.replace(notice, data=to_json(data | {"message": ""}))


# Frames -------------------------------------------------------------------------------------------------------------


def notification_id(notice: Notice, user_id: str) -> str:
    """Return the id of a user's copy, the same in every attempt."""
    return dated_id(Prefix.NOTIFICATION, notice.created_at_ms, notice.key, user_id)


def entry_data(notice: Notice, entry: Entry) -> bytes:
    """Return the `data` for the entry's user: the event's, with `seq`, and `id` and `createdAt` for a notification."""
    if notice.type == NOTIFICATION_NEW:
        head = f'{{"id":"{entry.id}","seq":{entry.seq},"createdAt":"{to_iso(notice.created_at_ms)}"'
    else:
        head = f'{{"seq":{entry.seq}'
    return _joined(head.encode(), notice.data)


def entry_frame(notice: Notice, entry: Entry) -> bytes:
    """Return the finished frame for the entry's user, live or replayed."""
    return _framed(notice.type, entry_data(notice, entry))


def entry_view(notice: Notice, entry: Entry) -> NotificationView:
    """Return the entry as REST shows it."""
    shown = msgspec.json.decode(notice.data, type=_Shown) if notice.type == NOTIFICATION_NEW else _Shown()
    return NotificationView(
        id=entry.id,
        seq=entry.seq,
        type=notice.type,
        created_at=to_iso(notice.created_at_ms),
        read=entry.read_at_ms is not None,
        read_at=None if entry.read_at_ms is None else to_iso(entry.read_at_ms),
        data=msgspec.Raw(entry_data(notice, entry)),
        title=shown.title,
        message=shown.message,
        priority=shown.priority,
    )


def listeners_frame(notice: Notice) -> bytes:
    """Return the finished frame for the subscribers of a channel."""
    if notice.type != NOTIFICATION_NEW:
        return _framed(notice.type, notice.data)
    head = f'{{"id":"{notification_id(notice, "")}","createdAt":"{to_iso(notice.created_at_ms)}"'
    return _framed(notice.type, _joined(head.encode(), notice.data))


def _joined(head: bytes, data: bytes) -> bytes:
    """Join the unclosed beginning of a JSON object with a complete object."""
    return head + (data[1:] if data == b"{}" else b"," + data[1:])


def _framed(type_: str, data: bytes) -> bytes:
    return b'{"type":"' + type_.encode() + b'","data":' + data + b"}"
