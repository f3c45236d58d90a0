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

    `name` stands in saved positions, so it must not change.
    """

    @property
    def name(self) -> str:
        """Return the name of its positions, and of its metrics."""

    def wanted(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Return those of these consecutive entries of one room that the consumer processes.

        HOT: called for every entry.
        """

    async def take(self, batches: Sequence[RoomBatch]) -> None:
        """Process entries; idempotent. Once it returns, they might not be delivered again."""

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        """Forget what is kept of rooms that another process owns now."""

    async def finish(self) -> None:
        """Write deferred changes, because the process stops."""
