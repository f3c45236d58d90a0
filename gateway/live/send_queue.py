"""The send queue of a slow socket. Pure; bounded in bytes.

Lossless items are queued, and of prices only the newest of each symbol (conflation). Both count towards `max_bytes`,
except items of a replay, since a budget bounds them. Transient items are dropped (load shedding).
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.fanout.batch import DropPolicy, Item

SEND_QUEUE_MAX_BYTES = 1024 * 1024


class _Queued(NamedTuple):
    """The frame of an item, and the bytes that count towards the bound."""

    data: bytes
    counted_bytes: int


class SendQueue:
    """Items for one slow socket, in order. A newer price takes the place of the older one."""

    def __init__(self, max_bytes: int = SEND_QUEUE_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._waiting: dict[object, _Queued] = {}  # in order of arrival; keys: see `_key_of`
        self.last_number = 0  # the number of the last lossless item added
        self.taken_number = 0  # the number of the last lossless item taken
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
                self.size_bytes -= replaced.counted_bytes
                self.conflated += 1
            counted_bytes = 0 if item.policy is DropPolicy.HELD else len(item.data)
            self._waiting[key] = _Queued(item.data, counted_bytes)
            self.size_bytes += counted_bytes
        return self.size_bytes <= self._max_bytes

    def take(self, max_bytes: int) -> bytes:
        """Remove and return the oldest items, at least one if there is any, up to about `max_bytes`."""
        taken: list[bytes] = []
        size_bytes = 0
        for key in list(self._waiting):
            queued = self._waiting[key]
            if taken and size_bytes + len(queued.data) > max_bytes:
                break
            del self._waiting[key]
            if isinstance(key, int):
                self.taken_number = key
            taken.append(queued.data)
            size_bytes += len(queued.data)
            self.size_bytes -= queued.counted_bytes
        return b"".join(taken)

    def _key_of(self, item: Item) -> object:
        """Return the conflation key of an item. Staleness marks have separate keys; lossless items get a number."""
        if item.policy is DropPolicy.CONFLATE:
            return (item.key, item.marks_staleness)
        self.last_number += 1
        return self.last_number
