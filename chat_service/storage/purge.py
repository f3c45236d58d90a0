"""The purge of deleted rooms: content and memberships at once, the log a day later, the record never.

The record and the newest entry of the log stay as a tombstone, so that no owner mistakes the room for one that never
existed.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from chat_service.rooms.room import Room
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.room_store import RoomStore
from shared.errors import Unavailable
from shared.telemetry import logs
from shared.times import MILLISECONDS_PER_DAY

log = logs.get(__name__)

INTERVAL_S = 30.0


class RoomIndex(Protocol):
    """The search index, as the purge sees it."""

    async def remove_room(self, room_id: str) -> None:
        """Remove the words of a room. Idempotent. Raises Unavailable."""


async def purge_deleted_rooms(
    rooms: RoomStore, messages: MessageStore, room_log: LogStore, index: RoomIndex, clock_ms: Callable[[], int]
) -> None:
    """Purge every 30 s, until cancelled. Several replicas may do so at once: every step is idempotent."""
    while True:
        try:
            for room, is_erased in await rooms.rooms_to_purge(clock_ms()):
                await index.remove_room(room.id)  # in each step: a stale owner may write words after the first
                await _purge(room, is_erased, rooms, messages, room_log, clock_ms())
        except Unavailable as error:
            log.warning("purge_postponed", reason=str(error), retry_in_s=INTERVAL_S)
        await asyncio.sleep(INTERVAL_S)


async def _purge(
    room: Room, is_erased: bool, rooms: RoomStore, messages: MessageStore, room_log: LogStore, now_ms: int
) -> None:
    if is_erased:
        await room_log.remove_before(room.id, room.rev)
        await rooms.set_purge_due(room.id, None)
        log.info("room_purged")
        return
    await room_log.erase_content(room.id, room.rev)
    await messages.purge(room.id)
    await rooms.purge_members(room.id)
    await rooms.set_purge_due(room.id, now_ms + MILLISECONDS_PER_DAY)
    log.info("room_content_erased")
