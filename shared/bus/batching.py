"""Batching of lines into AMQP bodies, and the split back into lines. Pure.

A destination is an exchange, a key and a reply queue. While one body to it is in flight, the next lines gather. So a
line to an idle destination leaves at once, and a busy one receives few large bodies, at the pace of the broker.
"""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

BATCH_MAX_BYTES = 64 * 1024

K = TypeVar("K", bound=Hashable)
W = TypeVar("W")


class Parcel(Generic[K, W]):
    """The lines of one future AMQP body, their routing keys, and the waiter for its confirm."""

    __slots__ = ("destination", "expires_at_ms", "keys", "lines", "size_bytes", "waiter")

    def __init__(self, destination: K, waiter: W) -> None:
        self.destination = destination
        self.waiter = waiter
        self.lines: list[bytes] = []
        self.keys: dict[str, None] = {}
        self.size_bytes = 0
        self.expires_at_ms: int | None = None

    def body(self) -> bytes:
        """Return the lines, separated by line breaks."""
        return b"\n".join(self.lines)

    def add(self, line: bytes, key: str, expires_at_ms: int | None) -> None:
        """Add a line. The body expires with the longest-lived of its lines."""
        self.lines.append(line)
        self.keys[key] = None
        self.size_bytes += len(line) + 1
        if expires_at_ms is not None and (self.expires_at_ms is None or expires_at_ms > self.expires_at_ms):
            self.expires_at_ms = expires_at_ms


class LineBatcher(Generic[K, W]):
    """Gathers lines by destination, and keeps their order within it.

    Bound: the lines that are gathered and not sent have at most `max_bytes`; beyond that `add` returns None.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.waiting_bytes = 0
        self._waiting: dict[K, deque[Parcel[K, W]]] = {}
        self._under_way: dict[K, int] = {}

    def add(
        self, destination: K, key: str, line: bytes, new_waiter: Callable[[], W], expires_at_ms: int | None = None
    ) -> Parcel[K, W] | None:
        """Gather a line for a routing key, and return its parcel, or None when the bound is reached."""
        size_bytes = len(line) + 1
        if self.waiting_bytes + size_bytes > self.max_bytes:
            return None
        self.waiting_bytes += size_bytes
        parcels = self._waiting.get(destination)
        if parcels is None:
            parcels = self._waiting[destination] = deque()
        if not parcels or parcels[-1].size_bytes + size_bytes > BATCH_MAX_BYTES:
            parcels.append(Parcel(destination, new_waiter()))
        parcels[-1].add(line, key, expires_at_ms)
        return parcels[-1]

    def ready(self) -> list[Parcel[K, W]]:
        """Take the parcels that may leave now: of each destination the full ones, and the last if none is in flight."""
        leaving: list[Parcel[K, W]] = []
        for destination, parcels in list(self._waiting.items()):
            while len(parcels) > 1 or (parcels and not self._under_way.get(destination)):
                parcel = parcels.popleft()
                self.waiting_bytes -= parcel.size_bytes
                self._under_way[destination] = self._under_way.get(destination, 0) + 1
                leaving.append(parcel)
            if not parcels:
                del self._waiting[destination]
        return leaving

    def arrived(self, parcel: Parcel[K, W]) -> bool:
        """Note that the broker has answered for `parcel`, and return whether more wait for its destination."""
        left = self._under_way[parcel.destination] - 1
        if left:
            self._under_way[parcel.destination] = left
        else:
            del self._under_way[parcel.destination]
        return parcel.destination in self._waiting


def split_lines(body: bytes) -> list[bytes]:
    """Return the lines of a body that `Parcel.body` made."""
    return body.split(b"\n") if body else []
