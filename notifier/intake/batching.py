"""Batches of events cut into pieces of bounded size. Pure."""

from collections.abc import Iterable, Iterator

import msgspec

from notifier.events.audience import Users
from notifier.events.notifications import Addressed
from shared.bus.delivery import Delivery

DELIVERED_AT_ONCE_MAX_BYTES = 4 * 1024 * 1024


def by_recipients(addressed: Iterable[Addressed], recipients_max: int) -> Iterator[list[Addressed]]:
    """Yield the events in order, in groups of at most `recipients_max` recipients. Larger events are split."""
    some: list[Addressed] = []
    left = recipients_max
    for item in addressed:
        for part, count in _parts(item, recipients_max):
            if count > left:
                yield some
                some, left = [], recipients_max
            some.append(part)
            left -= count
    if some:
        yield some


def _parts(item: Addressed, recipients_max: int) -> Iterator[tuple[Addressed, int]]:
    """Yield the event, or parts of it with fewer users, each with its number of recipients."""
    if not isinstance(item.audience, Users):
        yield item, 1
        return
    ids = item.audience.ids
    for start in range(0, len(ids), recipients_max):
        part = ids[start : start + recipients_max]
        yield msgspec.structs.replace(item, audience=Users(part)), len(part)


def by_size(deliveries: Iterable[Delivery]) -> Iterator[list[Delivery]]:
    """Yield the deliveries in order, in groups of some 4 MB, which bounds unconfirmed deliveries."""
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
