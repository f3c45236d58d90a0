"""Deduplication of events. Pure.

A redelivered event must not count twice. Bound: the newest `size` keys; older ones are forgotten.
"""

from collections import deque
from collections.abc import Iterable


class SeenWindow:
    """The keys of the events seen last."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: set[bytes] = set()
        self._order: deque[bytes] = deque()

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes) -> bool:
        """Note a key, and return whether it is new."""
        if key in self._keys:
            return False
        self._keys.add(key)
        self._order.append(key)
        if len(self._order) > self._size:
            self._keys.discard(self._order.popleft())
        return True

    def load(self, keys: Iterable[bytes]) -> None:
        """Note keys, oldest first."""
        for key in keys:
            self.add(key)
