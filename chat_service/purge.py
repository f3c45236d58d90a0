"""Purges deleted rooms: their messages and members, then their tombstones."""

import asyncio

from chat_service.store import RoomStore
from shared.errors import Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

INTERVAL_S = 30.0


async def purge_deleted_rooms(store: RoomStore) -> None:
    """Purge every 30 s, until cancelled. Idempotent, so any number of replicas may do it at once."""
    while True:
        try:
            for room_id in await store.deleted_rooms():
                await store.purge(room_id)
                log.info("room_purged")
        except Unavailable as error:
            log.warning("purge_delayed", reason=str(error))
        await asyncio.sleep(INTERVAL_S)
