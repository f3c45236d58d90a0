"""Repair after an owner was killed: records older than their logs, and entries that were never delivered.

Runs as a separate task in small paced steps, so that neither heartbeats nor commits wait for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from chat_service.rooms.entry_deliveries import head_deliveries, own_deliveries_of
from chat_service.rooms.log import LogEntry, apply
from chat_service.rooms.membership_deliveries import membership_checks
from chat_service.rooms.room import Room
from chat_service.storage.documents import NewerDocument
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.room_store import RoomStore
from shared.bus.delivery import Delivery
from shared.bus.topology import partition_of
from shared.mongo import DOCUMENTS_MAX, chunks
from shared.telemetry import logs

log = logs.get(__name__)

LOOK_BACK_MS = 600_000
ANNOUNCE_WITHIN_MS = 10_000
ROOMS_PER_STEP = 20
STEP_PAUSE_S = 0.02


class Repair:
    """Brings the records of rooms up to date with their logs.

    `touched_since` returns the rooms that were about to get an entry other than a message; see the follower.
    """

    def __init__(
        self,
        rooms: RoomStore,
        messages: MessageStore,
        room_log: LogStore,
        touched_since: Callable[[int], Awaitable[list[str]]],
        clock_ms: Callable[[], int],
    ) -> None:
        self._touched_since = touched_since
        self._rooms = rooms
        self._messages = messages
        self._log = room_log
        self._clock_ms = clock_ms

    async def run(self, partitions: Collection[int], announce: Callable[[list[Delivery]], None]) -> int:
        """Repair the recently active rooms of these partitions; return the number of outdated ones. Raises Unavailable.

        `announce` receives the heads of the most recent ones, whose last entries may be stored but undelivered, and the
        lines that these entries send to single users.
        """
        now_ms = self._clock_ms()
        active = {room.id for room in await self._rooms.rooms_active_since(now_ms - LOOK_BACK_MS)}
        touched = await self._touched_since(now_ms - LOOK_BACK_MS)
        mine = [room_id for room_id in active.union(touched) if partition_of(room_id) in partitions]
        repaired = 0
        for some in chunks(mine, ROOMS_PER_STEP):
            records = await self._rooms.rooms(some)
            before = [records.get(room_id) for room_id in some]
            repairs = (self._repair_room(room_id, room) for room_id, room in zip(some, before, strict=True))
            after = await asyncio.gather(*repairs)
            for record, room in zip(before, after, strict=True):
                repaired += room is not None and (record is None or room.rev > record.rev)
            since_ms = now_ms - ANNOUNCE_WITHIN_MS
            recent = [room for room in after if room is not None and room.newest_at_ms > since_ms]
            for lines in await asyncio.gather(*(self._announcements(room, since_ms) for room in recent)):
                announce(lines)
            await asyncio.sleep(STEP_PAUSE_S)
        return repaired

    async def _announcements(self, room: Room, since_ms: int) -> list[Delivery]:
        """Return first the lines to users whose membership an entry since `since_ms` changed, then the room's head.

        The killed owner may have sent none of them. Gateways drop repeats by room and rev.
        """
        head = head_deliveries(room.id, room.rev, room.newest_at_ms, room.direct)
        if room.direct is not None or room.changed_at_ms <= since_ms:
            return head
        try:
            entries = await self._log.membership_changes(room.id, max(room.rev - DOCUMENTS_MAX, 0), since_ms)
        except NewerDocument as error:
            log.error("room_not_readable", room_id=room.id, reason=str(error))
            return head
        own = {line.channel: line for entry in entries for line in own_deliveries_of(entry, sent_again=True)}
        return [*own.values(), *(line for entry in entries for line in membership_checks(entry)), *head]

    async def _repair_room(self, room_id: str, room: Room | None) -> Room | None:
        """Return the room after all entries; None if it has none, because its creation failed."""
        try:
            behind = await self._log.after(room_id, 0 if room is None else room.rev)
        except NewerDocument as error:
            log.error("room_not_readable", room_id=room_id, reason=str(error))
            return room
        if not behind or (room is None and behind[0].settings is None):  # the latter: purged
            return room
        record = None if room is None else msgspec.structs.replace(room)
        return await project(self._rooms, self._messages, record, behind)


async def project(rooms: RoomStore, messages: MessageStore, room: Room | None, behind: Sequence[LogEntry]) -> Room:
    """Write the changes of the entries after a record, and return the room after them.

    The record is written last, so memberships, messages and read marks are never older than the rev of the record.
    """
    marks: dict[tuple[str, str], int] = {}
    for entry in behind:
        room = apply(entry, room)
        if (message := entry.message) is not None:
            marks[room.id, message.user_id] = message.seq
    assert room is not None, "the first entry of a log carries the settings of the room"  # noqa: S101
    await rooms.put_members([entry for entry in behind if entry.members])
    await messages.write_changes(behind)
    await rooms.put_read_marks(marks)
    await rooms.put_rooms([room])
    return room
