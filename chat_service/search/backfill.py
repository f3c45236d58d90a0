"""Indexes the messages that were stored before this version, once, in the background.

Each replica does the rooms of its partitions, newest rooms and newest messages first: 4,096 messages a step, with a
pause as long as the step. It is idempotent: existing pages are skipped, so a killed process continues, and two
may run at once. Until it is done, searches read messages without a page from the log.
"""

import asyncio
import time
from collections.abc import Callable, Collection

from chat_service.rooms.room import Room
from chat_service.search.builder import PageBuilder
from chat_service.search.index_store import IndexStore
from chat_service.search.tree import Page, chunk_of
from chat_service.storage.log_store import LogStore
from chat_service.storage.migration import read_state, save_state
from chat_service.storage.room_store import RoomStore
from shared.bus.topology import PARTITIONS, partition_of
from shared.errors import Unavailable
from shared.mongo import Database
from shared.telemetry import logs

log = logs.get(__name__)

NAME = "message_words"
ROOMS_PER_READ = 500
ROOMS_END = "room_~"  # after the ids of all rooms
LOOK_S = 5.0
RETRY_S = 5.0
PAUSE_RATIO = 1.0


class Backfill:
    """The indexing of older messages. `owned` returns the partitions of this process."""

    def __init__(
        self,
        database: Database,
        rooms: RoomStore,
        room_log: LogStore,
        store: IndexStore,
        owned: Callable[[], Collection[int]],
        pause_ratio: float = PAUSE_RATIO,
    ) -> None:
        self._states = database["migrations"]
        self._rooms = rooms
        self._log = room_log
        self._store = store
        self._builder = PageBuilder(store)
        self._owned = owned
        self._pause_ratio = pause_ratio

    async def run(self) -> None:
        """Index all rooms of the partitions that this process owns now or later; return when all partitions are done.

        Retry while the database is unavailable.
        """
        while True:
            try:
                state = await read_state(self._states, NAME)
                done = {number for number in range(PARTITIONS) if state.get(f"done_{number}")}
                if len(done) == PARTITIONS:
                    return
                mine = sorted(set(self._owned()) - done)
                if mine:
                    await self._index_partition(mine[0], state.get(f"before_{mine[0]}", ROOMS_END))
                else:
                    await asyncio.sleep(LOOK_S)
            except Unavailable as error:
                log.warning("search_backfill_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _index_partition(self, number: int, before: str) -> None:
        """Index the rooms of a partition, in descending order of their ids, from `before` on."""
        while found := await self._rooms.rooms_before(before, ROOMS_PER_READ):
            for room in found:
                if partition_of(room.id) == number and not room.deleted and room.last_seq:
                    await self.index_room(room)
            before = found[-1].id
            await save_state(self._states, NAME, {"$set": {f"before_{number}": before}})
        await save_state(self._states, NAME, {"$set": {f"done_{number}": True}})
        log.info("search_backfill_done", partition=number)

    async def index_room(self, room: Room) -> None:
        """Build the pages of a room that do not exist, newest first."""
        beyond = await self._log.after(room.id, room.rev)
        rev = beyond[-1].rev if beyond else room.rev
        last_seq = max([room.last_seq, *(entry.last_seq for entry in beyond)])
        for number in range(chunk_of(last_seq).parent.number, -1, -1):
            started_s = time.monotonic()
            if await self._index_group(room.id, Page(1, number), last_seq, rev):
                await asyncio.sleep((time.monotonic() - started_s) * self._pause_ratio)

    async def _index_group(self, room_id: str, parent: Page, last_seq: int, rev: int) -> bool:
        """Build a level-1 page and its children where they are missing; return whether any was missing."""
        wanted = [page for page in parent.children if page.first_seq <= last_seq]
        found = await self._store.pages([(room_id, page) for page in [parent, *wanted]])
        if (room_id, parent) in found:
            return False
        missing = [page for page in wanted if (room_id, page) not in found]
        for page in reversed(missing):
            await self._builder.build_chunk(room_id, page, rev, frozenset())
            await asyncio.sleep(0)
        if parent.last_seq <= last_seq:
            await self._builder.build_above(room_id, [wanted[-1]], rev)
        return bool(missing)
