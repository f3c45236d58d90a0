"""Grouped reads: no answer is older than its question."""

import asyncio
from collections.abc import Collection, Mapping

import pytest

from chat_service.storage.group_read import GroupRead
from shared.errors import Unavailable


class Counts:
    """Reads that wait to be released, and fail on request."""

    def __init__(self) -> None:
        self.reads: list[set[str]] = []
        self.value = 0
        self.gate = asyncio.Semaphore(0)
        self.failures = 0

    async def read(self, keys: Collection[str]) -> Mapping[str, int]:
        self.reads.append(set(keys))
        await self.gate.acquire()
        if self.failures:
            self.failures -= 1
            raise Unavailable("the database is unavailable")
        return dict.fromkeys(keys, self.value)


async def test_questions_during_read_share_next_read() -> None:
    counts = Counts()
    group: GroupRead[str, int] = GroupRead(counts.read)
    first = asyncio.ensure_future(group.get(["a"]))
    await asyncio.sleep(0)
    later = [asyncio.ensure_future(group.get(keys)) for keys in (["a", "b"], ["c"], ["a"])]
    await asyncio.sleep(0)
    counts.gate.release()
    assert (await first)["a"] == 0
    counts.value = 1
    counts.gate.release()
    assert [(await one)["a"] for one in later] == [1, 1, 1]
    assert counts.reads == [{"a"}, {"a", "b", "c"}]


async def test_failed_read_is_retried_by_others() -> None:
    counts = Counts()
    counts.failures = 1
    group: GroupRead[str, int] = GroupRead(counts.read)
    tasks = [asyncio.ensure_future(group.get([key])) for key in "ab"]
    for _ in range(2):
        counts.gate.release()
    with pytest.raises(Unavailable):
        await tasks[0]
    assert await tasks[1] == {"b": 0}


async def test_cancelled_reader_leaves_others_their_answers() -> None:
    counts = Counts()
    group: GroupRead[str, int] = GroupRead(counts.read)
    first = asyncio.ensure_future(group.get(["a"]))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(group.get(["b"]))
    await asyncio.sleep(0)
    first.cancel()
    counts.gate.release()
    assert await second == {"b": 0}
