"""What waits for a socket that does not read fast enough. Pure; bounded in bytes.

Lossless items wait, at most `max_bytes` of them; of prices only the newest a symbol waits; transient items are dropped.
"""

from collections.abc import Iterable

from gateway.fanout.batch import Item
from shared.bus.delivery import DeliveryClass

OUTBOX_MAX_BYTES = 1024 * 1024


class Outbox:
    """Items for one slow socket, in order. A newer price takes the place of the older one."""

    def __init__(self, max_bytes: int = OUTBOX_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._waiting: dict[object, bytes] = {}  # by key for prices, by a number for the others; in order of arrival
        self._number = 0
        self.size_bytes = 0
        self.dropped = 0
        self.conflated = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, items: Iterable[Item]) -> bool:
        """Keep what must be kept. False when that is more than the bound: the socket is to be closed (4413)."""
        for item in items:
            key: object = item.key
            if item.kind is DeliveryClass.TRANSIENT:
                self.dropped += 1
                continue
            if item.kind is DeliveryClass.LATEST and item.key in self._waiting:
                self.size_bytes -= len(self._waiting[item.key])
                self.conflated += 1
            elif item.kind is not DeliveryClass.LATEST:
                self._number += 1
                key = self._number
            self._waiting[key] = item.data
            self.size_bytes += len(item.data)
        return self.size_bytes <= self._max_bytes

    def take(self, max_bytes: int) -> bytes:
        """Remove and return the oldest items, at least one if there is any, up to about `max_bytes`."""
        taken: list[bytes] = []
        size_bytes = 0
        for key in list(self._waiting):
            data = self._waiting[key]
            if taken and size_bytes + len(data) > max_bytes:
                break
            del self._waiting[key]
            taken.append(data)
            size_bytes += len(data)
        self.size_bytes -= size_bytes
        return b"".join(taken)
