"""Divides deliveries into message bodies, each with the routing keys of the queues that it goes to."""

from collections.abc import Iterable, Iterator, Sequence

from shared.bus.delivery import ANSWERS, Delivery, DeliveryKind
from shared.bus.topology import shard_key, shard_of

BODY_MAX_BYTES = 1024 * 1024


def delivery_bodies(deliveries: Iterable[Delivery], queues: Sequence[str]) -> Iterator[tuple[list[bytes], list[str]]]:
    """Yield the lines and the routing keys of each body, in order. HOT.

    A body goes to `queues` and to the shard of each of its deliveries, except answers, which have none. Beyond 1 MB,
    further bodies follow. A CONTROL line is never split from the line before it.
    """
    lines: list[bytes] = []
    keys: dict[str, None] = dict.fromkeys(queues)
    size_bytes = 0
    for delivery in deliveries:
        line = delivery.to_line()
        is_full = size_bytes + len(line) > BODY_MAX_BYTES
        if lines and is_full and delivery.kind is not DeliveryKind.CONTROL:
            yield lines, list(keys)
            lines, keys, size_bytes = [], dict.fromkeys(queues), 0
        lines.append(line)
        size_bytes += len(line)
        if delivery.kind not in ANSWERS:
            keys[shard_key(shard_of(delivery.channel))] = None
    if lines:
        yield lines, list(keys)
