"""What a killed replica had not written yet of rooms and read marks, told from their messages; see `lag`."""

import asyncio
from collections.abc import Callable, Collection

from chat_service.store import RoomStore
from chat_service.write_behind import Lag
from shared.bus.topology import partition_of

LOOKS_BACK_MS = 600_000


async def repair(store: RoomStore, clock_ms: Callable[[], int], partitions: Collection[int]) -> int:
    """Bring the records of these partitions' rooms up to date; returns how many were behind. Raises Unavailable."""
    now_ms = clock_ms()
    lately = await store.rooms_active_since(now_ms - LOOKS_BACK_MS)
    rooms = [room for room in lately if partition_of(room.id) in partitions]
    lag = Lag()
    for posts in await asyncio.gather(*map(store.posts_beyond, rooms)):
        for post in posts:
            lag.add(post)
    posts, marks = lag.take(lag.rooms())
    await store.put_read_marks(marks)
    await store.advance_rooms(posts)
    return len(posts)
