"""Reads whose results serve again for a second."""

import asyncio
from collections.abc import Collection

from chat_service.storage.group_read import GroupRead
from chat_service.storage.recent_read import KEPT_MS, RecentRead


class CountedRooms:
    """CountedRooms by room, and the reads of them."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.counts = {"a": 1}
        self.reads: list[set[str]] = []
        self.recent = RecentRead(GroupRead(self.read), lambda: self.now_ms)

    async def read(self, keys: Collection[str]) -> dict[str, int]:
        self.reads.append(set(keys))
        return {key: self.counts[key] for key in keys if key in self.counts}


async def test_result_serves_again_for_a_second() -> None:
    world = CountedRooms()
    assert await world.recent.get(["a", "b"], is_fresh=False) == {"a": 1}
    world.counts = {"a": 2, "b": 5}
    world.now_ms = KEPT_MS - 1
    assert await world.recent.get(["a", "b"], is_fresh=False) == {"a": 1}
    world.now_ms = KEPT_MS
    assert await world.recent.get(["a", "b"], is_fresh=False) == {"a": 2, "b": 5}
    assert world.reads == [{"a", "b"}] * 2


async def test_fresh_read_is_not_kept() -> None:
    """A command reads before it changes the value."""
    world = CountedRooms()
    assert await world.recent.get(["a"]) == {"a": 1}
    world.counts["a"] = 2
    assert await world.recent.get(["a"], is_fresh=False) == {"a": 2}


async def test_forgotten_result_is_read_again() -> None:
    world = CountedRooms()
    await world.recent.get(["a", "b"], is_fresh=False)
    world.counts["a"] = 2
    world.recent.forget({"a"})
    assert await world.recent.get(["a", "b"], is_fresh=False) == {"a": 2}
    assert world.reads == [{"a", "b"}, {"a"}]


async def test_slow_read_serves_for_a_second_from_its_start() -> None:
    world = CountedRooms()
    started, go_on = asyncio.Event(), asyncio.Event()
    read = world.read

    async def slow(keys: Collection[str]) -> dict[str, int]:
        started.set()
        await go_on.wait()
        return await read(keys)

    recent = RecentRead(GroupRead(slow), lambda: world.now_ms)
    reading = asyncio.create_task(recent.get(["a"], is_fresh=False))
    await started.wait()
    world.now_ms = KEPT_MS - 1
    go_on.set()
    assert await reading == {"a": 1}
    world.now_ms = KEPT_MS
    world.counts["a"] = 2
    assert await recent.get(["a"], is_fresh=False) == {"a": 2}


async def test_no_key_needs_no_read() -> None:
    world = CountedRooms()
    assert await world.recent.get([]) == {}
    assert world.reads == []
