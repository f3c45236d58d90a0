"""Grouped inserts: each partition gets the outcome of its own messages."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.group_insert import INSERTED_AT_ONCE_MAX, GroupInsert
from chat_service.messages import Message
from chat_service.store import InsertConflict
from shared.errors import Unavailable
from shared.protocol.server_frames import UserProfile


class Log:
    """An ordered insert into a log with unique ids, like the database's; `release` lets one insert proceed."""

    def __init__(self, *stored: str) -> None:
        self.stored: list[str] = list(stored)
        self.writes: list[list[str]] = []
        self.gate = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def insert_messages(self, messages: Sequence[Message]) -> None:
        self.writes.append([message.id for message in messages])
        await self.gate.acquire()
        if self.error is not None:
            raise self.error
        for index, message in enumerate(messages):
            if message.id in self.stored:
                raise InsertConflict("there", index)
            self.stored.append(message.id)


def messages(*ids: str) -> list[Message]:
    return [
        Message(
            id=id_,
            room_id="r",
            seq=1,
            user_id="u",
            user=UserProfile(),
            text="",
            client_message_id=None,
            created_at_ms=1,
        )
        for id_ in ids
    ]


def always() -> None:
    pass


def never() -> None:
    raise Unavailable("the lease has run out")


async def outcomes(log: Log, *groups: list[Message]) -> list[BaseException | None]:
    inserts = GroupInsert(log)
    tasks = [asyncio.ensure_future(inserts.insert(group, always)) for group in groups]
    await asyncio.sleep(0)  # the first write is in flight, the others wait
    for _ in range(len(groups) + 1):
        log.gate.release()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_inserts_during_write_share_next_write() -> None:
    log = Log()
    assert await outcomes(log, messages("a"), messages("b", "c"), messages("d")) == [None, None, None]
    assert log.writes == [["a"], ["b", "c", "d"]]


async def test_conflict_fails_only_its_group() -> None:
    log = Log("x")
    first, second, third = await outcomes(log, messages("a"), messages("b", "x", "c"), messages("d"))
    assert first is None
    assert isinstance(second, InsertConflict)
    assert second.stored == 1
    assert third is None
    assert log.stored == ["x", "a", "b", "d"]


async def test_unavailable_database_fails_all_groups() -> None:
    log = Log()
    log.error = Unavailable("unreachable")
    assert [type(outcome) for outcome in await outcomes(log, messages("a"), messages("b"))] == [Unavailable] * 2


async def test_group_with_expired_lease_is_left_out() -> None:
    log = Log()
    log.gate.release()
    log.gate.release()
    inserts = GroupInsert(log)
    one, other = await asyncio.gather(
        inserts.insert(messages("a"), never), inserts.insert(messages("b"), always), return_exceptions=True
    )
    assert isinstance(one, Unavailable)
    assert other is None
    assert log.stored == ["b"]


async def test_cancelled_writer_leaves_other_groups_written() -> None:
    log = Log()
    inserts = GroupInsert(log)
    first = asyncio.ensure_future(inserts.insert(messages("a"), always))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(inserts.insert(messages("b"), always))
    await asyncio.sleep(0)
    first.cancel()
    log.gate.release()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert log.stored == ["b"]


async def test_one_insert_is_bounded() -> None:
    log = Log()
    groups = [messages(*(f"{number}-{index}" for index in range(400))) for number in range(5)]
    assert await outcomes(log, *groups) == [None] * 5
    assert all(len(write) <= INSERTED_AT_ONCE_MAX for write in log.writes)
    assert len(log.stored) == 2_000


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True), min_size=1, max_size=6))
def test_each_group_gets_its_own_outcome(drawn: list[list[int]]) -> None:
    async def check() -> None:
        log = Log("3", "7")
        groups = [messages(*map(str, ids)) for ids in drawn]
        told = await outcomes(log, *groups)
        assert len(log.stored) == len(set(log.stored))
        for group, outcome in zip(groups, told, strict=True):
            stored = (
                group if outcome is None else group[: outcome.stored] if isinstance(outcome, InsertConflict) else []
            )
            assert {message.id for message in stored} <= set(log.stored)

    asyncio.run(check())
