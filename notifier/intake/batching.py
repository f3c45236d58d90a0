"""A batch of events cut into pieces of bounded size, and held against what is known of them. Pure."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from notifier.events.audience import Users
from notifier.events.notifications import Addressed, Record
from shared.bus.delivery import Delivery

DELIVERED_AT_ONCE_MAX_BYTES = 4 * 1024 * 1024


def record_of(item: Addressed) -> Record:
    """What is to be known of an event that is begun."""
    notice = item.notice
    return Record(notice.key, notice.created_at_ms, notice if isinstance(item.audience, Users) else None)


def pending_of(addressed: Iterable[Addressed], records: Mapping[str, Record]) -> list[Addressed]:
    """What is not done yet; what an earlier try began goes on as it was begun."""
    pending: list[Addressed] = []
    for item in addressed:
        record = records.get(item.notice.key)
        if record is None:
            pending.append(item)
        elif not record.is_done:
            begun = record.notice or msgspec.structs.replace(item.notice, created_at_ms=record.created_at_ms)
            pending.append(Addressed(begun, item.audience))
    return pending


def by_recipients(addressed: Iterable[Addressed], recipients_max: int) -> Iterator[list[Addressed]]:
    """All in order, as many together as have that many recipients. An event with more of them is split."""
    some: list[Addressed] = []
    room = recipients_max
    for item in addressed:
        for part, count in _parts(item, recipients_max):
            if count > room:
                yield some
                some, room = [], recipients_max
            some.append(part)
            room -= count
    if some:
        yield some


def _parts(item: Addressed, recipients_max: int) -> Iterator[tuple[Addressed, int]]:
    """The item, or as many of it as its users make, each with the count of its recipients."""
    if not isinstance(item.audience, Users):
        yield item, 1
        return
    ids = item.audience.ids
    for start in range(0, len(ids), recipients_max):
        part = ids[start : start + recipients_max]
        yield Addressed(item.notice, Users(part)), len(part)


def by_size(deliveries: Iterable[Delivery]) -> Iterator[list[Delivery]]:
    """All in order, some 4 MB together at most: what waits for the broker is bounded."""
    some: list[Delivery] = []
    size_bytes = 0
    for delivery in deliveries:
        some.append(delivery)
        size_bytes += len(delivery.frame)
        if size_bytes > DELIVERED_AT_ONCE_MAX_BYTES:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some
