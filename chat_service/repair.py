"""Repair of what a killed owner left behind: records that are behind their logs, and entries never delivered.

Runs as a task of its own, in small paced steps: neither beats nor commits wait for it, however many rooms were active.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence

import msgspec

from chat_service.heads import head_lines
from chat_service.log import LogEntry, apply
from chat_service.log_store import LogStore
from chat_service.rooms import Room
from chat_service.store import RoomStore
from shared.bus.delivery import Delivery
from shared.bus.topology import partition_of
from shared.mongo import chunks

LOOK_BACK_MS = 600_000
ANNOUNCED_MS = 10_000
ROOMS_PER_STEP = 20
STEP_PAUSE_S = 0.02


class Repair:
    """Brings the records of rooms up to date with their logs."""

    def __init__(self, rooms: RoomStore, room_log: LogStore, clock_ms: Callable[[], int]) -> None:
        self._rooms = rooms
        self._log = room_log
        self._clock_ms = clock_ms

    async def run(self, partitions: Collection[int], announce: Callable[[list[Delivery]], None]) -> int:
        """Repair the recently active rooms of these partitions; return how many were behind. Raises Unavailable.

        `announce` is given the heads of those that spoke last: their entries may be stored and delivered to nobody.
        """
        now_ms = self._clock_ms()
        lately = await self._rooms.rooms_active_since(now_ms - LOOK_BACK_MS)
        mine = [room for room in lately if partition_of(room.id) in partitions]
        repaired = 0
        for some in chunks(mine, ROOMS_PER_STEP):
            for behind, room in zip(some, await asyncio.gather(*map(self._repair_room, some)), strict=True):
                repaired += room.rev > behind.rev
                if room.active_at_ms > now_ms - ANNOUNCED_MS:
                    announce(head_lines(room.id, room.rev, room.active_at_ms, room.direct))
            await asyncio.sleep(STEP_PAUSE_S)
        return repaired

    async def _repair_room(self, room: Room) -> Room:
        behind = await self._log.behind(room.id, room.rev)
        return await project(self._rooms, msgspec.structs.replace(room), behind) if behind else room


async def project(rooms: RoomStore, room: Room | None, behind: Sequence[LogEntry]) -> Room:
    """Write what the entries behind a record change, and return the room after them.

    The record comes last. Whoever reads it therefore finds the memberships and read marks of all entries before its
    rev.
    """
    marks: dict[tuple[str, str], int] = {}
    for entry in behind:
        room = apply(entry, room)
        if (message := entry.message) is not None:
            marks[room.id, message.user_id] = message.seq
    assert room is not None, "a log that is behind nothing has a first entry"  # noqa: S101
    await rooms.put_members([entry for entry in behind if entry.members])
    await rooms.put_read_marks(marks)
    await rooms.put_rooms([room])
    return room
