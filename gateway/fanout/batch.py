"""Frames written together: joined once, compressed once, the same bytes for every socket. Pure."""

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import NamedTuple

from gateway.fanout.wire import deflated_frame


class DropPolicy(Enum):
    """The handling of an item for a socket that does not read fast enough."""

    NEVER = auto()  # never dropped
    HELD = auto()  # never dropped; its bytes are reserved in a `ByteBudget`, and exempt from the socket's bound
    CONFLATE = auto()  # replaced by a later item of the same key
    SHED = auto()  # dropped first


class Item(NamedTuple):
    """A complete WebSocket frame, and whether it may be dropped or conflated under overload.

    CONFLATE items of one `key` are conflated. A price that `marks_staleness` is conflated only with another such price:
    a later ordinary price does not replace it.
    """

    policy: DropPolicy
    key: str
    data: bytes
    marks_staleness: bool = False


class Batch:
    """One write. `data` joins the frames of `items`."""

    __slots__ = ("_deflated", "data", "items")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.data = items[0].data if len(items) == 1 else b"".join([item.data for item in items])
        self._deflated: bytes | None = None

    @classmethod
    def lossless(cls, frames: Iterable[bytes]) -> "Batch":
        """Return a batch of frames that are never dropped."""
        return cls([Item(DropPolicy.NEVER, "", frame) for frame in frames])

    @classmethod
    def replay(cls, frames: Iterable[bytes]) -> "Batch":
        """Return a batch of a replay, whose bytes are reserved in a `ByteBudget`."""
        return cls([Item(DropPolicy.HELD, "", frame) for frame in frames])

    @property
    def deflated(self) -> bytes:
        """Return the compressed frames for sockets that negotiated compression. Computed on first use."""
        if self._deflated is None:
            self._deflated = b"".join([deflated_frame(item.data) for item in self.items])
        return self._deflated
