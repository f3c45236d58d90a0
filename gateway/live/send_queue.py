"""The send queue of a slow socket. Pure; bounded in bytes.

Lossless items are queued, up to `max_bytes`. Only the newest price of each symbol is queued (conflation). Transient
items are dropped (load shedding).
"""

from collections.abc import Iterable

from gateway.fanout.batch import DropPolicy, Item

SEND_QUEUE_MAX_BYTES = 1024 * 1024


class SendQueue:
    """Items for one slow socket, in order. A newer price takes the place of the older one."""

    def __init__(self, max_bytes: int = SEND_QUEUE_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._waiting: dict[object, bytes] = {}  # in order of arrival; keys: see `_key_of`
        self._number = 0
        self.size_bytes = 0
        self.dropped = 0
        self.conflated = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, items: Iterable[Item]) -> bool:
        """Queue items by their `DropPolicy`. Return False beyond the bound: the caller closes the socket (4413)."""
        for item in items:
            if item.policy is DropPolicy.SHED:
                self.dropped += 1
                continue
            key = self._key_of(item)
            if (replaced := self._waiting.get(key)) is not None:
                self.size_bytes -= len(replaced)
                self.conflated += 1
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

    def _key_of(self, item: Item) -> object:
        """Return the conflation key of an item. Staleness marks have separate keys; lossless items get a number."""
        if item.policy is DropPolicy.CONFLATE:
            return (item.key, item.marks_staleness)
        self._number += 1
        return self._number
