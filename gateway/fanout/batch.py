"""Frames that leave together: joined once, compressed once, the same bytes for every socket. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.fanout.wire import deflated_frame
from shared.bus.delivery import DeliveryClass


class Item(NamedTuple):
    """A whole WebSocket frame and what may happen to it. `key` is what LATEST conflates by."""

    kind: DeliveryClass
    key: str
    data: bytes


class Batch:
    """One write. `data` is the frames of `items` joined."""

    __slots__ = ("_deflated", "data", "items")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.data = items[0].data if len(items) == 1 else b"".join([item.data for item in items])
        self._deflated: bytes | None = None

    @classmethod
    def lossless(cls, frames: Iterable[bytes]) -> "Batch":
        """Frames that are never dropped."""
        return cls([Item(DeliveryClass.LOSSLESS, "", frame) for frame in frames])

    @property
    def deflated(self) -> bytes:
        """The same frames for sockets that take compressed ones; made when the first of them asks."""
        if self._deflated is None:
            self._deflated = b"".join([deflated_frame(item.data) for item in self.items])
        return self._deflated
