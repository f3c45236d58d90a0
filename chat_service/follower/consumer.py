"""The interface of a consumer of log entries."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from chat_service.rooms.log import LogEntry


class RoomBatch(NamedTuple):
    """Entries of one room in rev order: those that the consumer wants."""

    room_id: str
    entries: Sequence[LogEntry]


class EntryConsumer(Protocol):
    """A consumer of entries. Its methods raise Unavailable to be called again.

    `name` is stored in the saved positions, so it must not change.
    """

    @property
    def name(self) -> str:
        """Return the name under which its positions and metrics are kept."""

    def wanted(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Return the entries that the consumer processes, from consecutive entries of one room.

        HOT: called for every entry.
        """

    async def take(self, batches: Sequence[RoomBatch]) -> None:
        """Process entries; idempotent. After it returns, do not count on another delivery."""

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        """Forget what is kept of rooms that another process owns now."""

    async def finish(self) -> None:
        """Write deferred changes, because the process stops."""
