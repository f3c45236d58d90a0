"""The interface of a consumer of log entries."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from chat_service.rooms.log import LogEntry


class RoomBatch(NamedTuple):
    """Consecutive entries of one room."""

    room_id: str
    entries: Sequence[LogEntry]


class EntryConsumer(Protocol):
    """A consumer of entries. Its methods raise Unavailable to be called again."""

    async def take(self, batches: Sequence[RoomBatch]) -> None:
        """Process entries; idempotent. Once it returns, they might not be delivered again."""

    async def finish(self) -> None:
        """Write deferred changes, because the process stops."""
