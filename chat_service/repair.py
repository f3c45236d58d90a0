"""The repair of rooms and read marks that a killed replica had not written; see `write_behind`."""

import asyncio
from collections.abc import Callable, Collection

from chat_service.store import RoomStore
from chat_service.write_behind import WriteBehind
from shared.bus.topology import partition_of

LOOKS_BACK_MS = 600_000


async def repair(store: RoomStore, clock_ms: Callable[[], int], partitions: Collection[int]) -> int:
    """Update these partitions' rooms from their messages, and return how many lagged behind. Raises Unavailable."""
    now_ms = clock_ms()
    lately = await store.rooms_active_since(now_ms - LOOKS_BACK_MS)
    rooms = [room for room in lately if partition_of(room.id) in partitions]
    unwritten = WriteBehind()
    for posts in await asyncio.gather(*map(store.posts_beyond, rooms)):
        for post in posts:
            unwritten.add(post)
    posts, marks = unwritten.take(unwritten.rooms())
    await store.put_read_marks(marks)
    await store.advance_rooms(posts)
    return len(posts)
