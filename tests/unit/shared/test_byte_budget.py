"""The budget of bytes under way."""

import asyncio
from collections.abc import Awaitable
from functools import partial

import pytest

from shared.byte_budget import SLOWEST_BYTES_PER_S, WAITING_MAX, WAITING_PER_USER_MAX, ByteBudget, Hold
from shared.errors import ErrorCode, Refusal

TOTAL, SHARE = 100, 40


def budget() -> ByteBudget:
    return ByteBudget("test", TOTAL, SHARE)


async def is_pending(waiting: "asyncio.Task[Hold]") -> bool:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return not waiting.done()


def begin(hold: Awaitable[Hold]) -> "asyncio.Task[Hold]":
    return asyncio.ensure_future(hold)


async def test_user_waits_for_their_own_share_while_others_pass() -> None:
    bytes_ = budget()
    first = await bytes_.hold("ann", SHARE)
    second = begin(bytes_.hold("ann", 1))
    assert await is_pending(second)
    await bytes_.hold("bob", SHARE)
    first.release()
    await second
    assert bytes_.held_bytes == SHARE + 1


async def test_large_hold_is_not_passed_by_smaller_ones() -> None:
    bytes_ = budget()
    holds = [await bytes_.hold(user, SHARE) for user in ("ann", "bob")]
    large, small = begin(bytes_.hold("eve", SHARE)), begin(bytes_.hold("joe", 1))
    assert await is_pending(large)
    assert await is_pending(small)
    holds[0].release()
    await large
    await small


async def test_hold_above_the_share_counts_as_the_share() -> None:
    bytes_ = budget()
    await bytes_.hold("ann", 10 * TOTAL)
    assert bytes_.held_bytes == SHARE


async def test_release_and_resize_admit_the_next() -> None:
    bytes_ = budget()
    hold = await bytes_.hold("ann", SHARE)
    waiting = begin(bytes_.hold("ann", 30))
    assert await is_pending(waiting)
    hold.resize(10)
    (await waiting).release()
    hold.release()
    hold.release()
    hold.resize(5)
    assert bytes_.held_bytes == 0


async def test_cancelled_waiter_takes_nothing_and_blocks_nobody() -> None:
    bytes_ = budget()
    holds = [await bytes_.hold(user, SHARE) for user in ("ann", "bob")]
    leaving, next_ = begin(bytes_.hold("eve", SHARE)), begin(bytes_.hold("joe", 20))
    assert await is_pending(next_)
    leaving.cancel()
    await next_
    for hold in holds:
        hold.release()
    assert bytes_.held_bytes == 20


async def test_waiter_cancelled_as_it_is_served_returns_its_bytes() -> None:
    bytes_ = budget()
    hold = await bytes_.hold("ann", SHARE)
    waiting = begin(bytes_.hold("ann", SHARE))
    assert await is_pending(waiting)
    hold.release()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert bytes_.held_bytes == 0


async def test_waiters_of_a_user_and_in_all_are_bounded() -> None:
    bytes_ = ByteBudget("test", 2, 1)
    await bytes_.hold("zoe", 1)
    await bytes_.hold("ann", 1)
    waiting = [begin(bytes_.hold("ann", 1)) for _ in range(WAITING_PER_USER_MAX)]
    assert await is_pending(waiting[-1])
    with pytest.raises(Refusal) as refused:
        await bytes_.hold("ann", 1)
    assert (refused.value.code, is_spread(refused.value.retry_after_ms)) == (ErrorCode.RATE_LIMITED, True)
    waiting += [begin(bytes_.hold(f"u{number}", 1)) for number in range(WAITING_MAX - WAITING_PER_USER_MAX)]
    assert await is_pending(waiting[-1])
    with pytest.raises(Refusal) as full:
        await bytes_.hold("bob", 1)
    assert full.value.code is ErrorCode.UNAVAILABLE
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_budget_without_shares_bounds_no_user() -> None:
    bytes_ = ByteBudget("test", 1, 1)
    hold = await bytes_.hold("gateway", 1)
    waiting = [begin(bytes_.hold("gateway", 1)) for _ in range(2 * WAITING_PER_USER_MAX)]
    assert await is_pending(waiting[-1])
    hold.release()
    for task in waiting:
        (await task).release()
    assert bytes_.held_bytes == 0


async def test_first_hold_of_a_user_may_grow_beyond_the_share() -> None:
    bytes_ = budget()
    hold = await bytes_.hold("ann", 1)
    hold.resize(SHARE + 10)
    second = begin(bytes_.hold("ann", 1))
    assert await is_pending(second)
    hold.release()
    await second


def is_spread(retry_after_ms: int | None) -> bool:
    return retry_after_ms is not None and 500 <= retry_after_ms <= 1_500


class TestTime:
    """With a short patience and a short wait, in real time."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value_s in {"PATIENCE_S": 0.02, "LOOK_S": 0.01, "WAIT_MAX_S": 0.2}.items():
            monkeypatch.setattr(f"shared.byte_budget.{name}", value_s)

    @staticmethod
    async def sending(bytes_: ByteBudget, *users: str) -> tuple[list[Hold], list[str]]:
        evicted: list[str] = []
        holds = [await bytes_.hold(user, SHARE) for user in users]
        for hold in holds:
            hold.begin_sending(partial(evicted.append, hold.user_id))
        return holds, evicted

    async def test_oldest_hold_that_stands_in_the_way_is_evicted(self) -> None:
        bytes_ = budget()
        _, evicted = await self.sending(bytes_, "ann", "bob")
        await bytes_.hold("eve", SHARE)
        assert evicted == ["ann"]
        assert bytes_.held_bytes == 2 * SHARE

    async def test_used_up_share_evicts_a_hold_of_the_same_user(self) -> None:
        bytes_ = budget()
        _, evicted = await self.sending(bytes_, "ann", "bob")
        await bytes_.hold("bob", 1)
        assert evicted == ["bob"]

    async def test_client_that_reads_fast_enough_is_not_evicted(self) -> None:
        bytes_ = budget()
        (fast, _), evicted = await self.sending(bytes_, "ann", "bob")
        waiting = begin(bytes_.hold("eve", SHARE))
        while not waiting.done():
            fast.sent(SLOWEST_BYTES_PER_S)
            await asyncio.sleep(0.005)
        assert evicted == ["bob"]

    async def test_hold_is_not_evicted_before_its_answer_is_sent(self) -> None:
        bytes_ = budget()
        await bytes_.hold("ann", SHARE)
        with pytest.raises(Refusal) as refused:
            await bytes_.hold("ann", 1)
        assert (refused.value.code, is_spread(refused.value.retry_after_ms)) == (ErrorCode.UNAVAILABLE, True)
        assert bytes_.held_bytes == SHARE
