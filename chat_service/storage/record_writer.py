"""The shell around `write_behind`: writes the changes that plain messages make to the records of rooms and members."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager

from chat_service.rooms.log import LogEntry
from chat_service.storage.room_store import RoomStore
from chat_service.storage.write_behind import ROOMS_MAX, MessagePlace, WriteBehind
from shared.bus import topology
from shared.errors import Unavailable
from shared.mongo import chunks
from shared.telemetry import logs
from shared.waiting import until_next

log = logs.get(__name__)

INTERVAL_S = 0.5


class RecordWriter:
    """The record writer of all partitions of a process: one database call writes the records of all of them."""

    def __init__(
        self,
        rooms: RoomStore,
        clock_ms: Callable[[], int],
        partition_of: Callable[[str], int] = topology.partition_of,
    ) -> None:
        self._rooms = rooms
        self._clock_ms = clock_ms
        self._partition_of = partition_of
        self._behind = WriteBehind()

    def note(self, entries: Iterable[LogEntry]) -> None:
        """Take entries that have been stored."""
        self._behind.note(entries, self._clock_ms())

    def claim_unmarked(self, room_ids: Collection[str]) -> set[str]:
        """Return the rooms not marked as active in the last 30 s, and note that the caller marks them now."""
        return self._behind.claim_unmarked(room_ids, self._clock_ms())

    async def mark_active(self, room_ids: set[str]) -> None:
        """Mark rooms as active. If that fails, the write of the record some seconds later includes the mark."""
        try:
            await self._rooms.mark_active(room_ids, self._clock_ms())
        except Unavailable as error:
            self._behind.release_claims(room_ids)
            log.warning("rooms_not_marked_active", reason=str(error), rooms=len(room_ids))

    async def run(self) -> None:
        """Write what is due, twice a second, until cancelled."""
        while True:
            await until_next(INTERVAL_S)
            await self.write_due()

    async def write_due(self) -> None:
        """Write the changes that are 5 s old. On a failure, retry them later."""
        while due := self._behind.due(self._clock_ms()):
            if not await self._write(due):
                return

    async def write_partition(self, number: int) -> None:
        """Write all changes of a partition's rooms now. On a failure, retry them later."""
        mine = [room_id for room_id in self._behind.rooms() if self._partition_of(room_id) == number]
        for some in chunks(mine, ROOMS_MAX):
            await self._write(some)

    @asynccontextmanager
    async def replaced(self, room_ids: Collection[str]) -> AsyncIterator[list[MessagePlace]]:
        """Write the rooms' read marks, then yield the due places; the caller writes the records inside the block.

        If the marks cannot be written, or the block fails, the changes taken here stay due. Raises Unavailable.
        """
        places, marks = self._behind.take(room_ids)
        try:
            await self._rooms.put_read_marks(marks)
            yield places
        except BaseException:
            self._behind.put_back(places, marks, self._clock_ms())
            raise

    async def _write(self, room_ids: Collection[str]) -> bool:
        try:
            async with self.replaced(room_ids) as places:
                await self._rooms.advance_rooms(places)
        except Unavailable as error:
            log.warning("write_behind_postponed", reason=str(error), rooms=len(room_ids))
            return False
        return True
