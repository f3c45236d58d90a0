"""The ack policy: lines whose handler succeeds, rejects, fails, waits, or loses its connection.

Everything runs in a loop with simulated time: a pause of two seconds takes none.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shared.bus.batching import split_lines
from shared.bus.consumer import TRIES_MAX, Consumer, Inbound, Line
from shared.errors import Unavailable


class _InstantSelector(selectors.DefaultSelector):
    """Never waits: the time that it should have waited is added to the clock instead."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("nothing will ever happen any more")
        if not ready and timeout is not None:
            self.now_s += max(timeout, 0.0)
        return ready


class _InstantLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._instant = _InstantSelector()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.now_s


def run(test: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=_InstantLoop) as runner:
        runner.run(_awaited(test))


async def _awaited(test: Callable[[], Awaitable[None]]) -> None:
    await test()


class StoppableChannel:
    """The consumer's channel; records calls, and their order with the queue's."""

    def __init__(self, queue: "Queue") -> None:
        self._queue = queue

    async def cancel(self) -> None:
        self._queue.history.append("cancel")

    async def close(self) -> None:
        self._queue.history.append("close")


class Queue:
    """A queue that records settled messages. `handle` is the test's."""

    def __init__(self, handle: Callable[[list[Line]], Awaitable[None]], **options: Any) -> None:
        self.acknowledged: list[bytes] = []
        self.dead: list[tuple[bytes, str]] = []
        self.history: list[str] = []
        self.batches: list[list[bytes]] = []
        self.dead_letters_fail = 0
        self._unsettled: list[bytes] = []
        self._handle = handle
        self.consumer = Consumer(
            "q",
            self._record,
            self._dead_letter,
            split=split_lines,
            **{"prefetch": 10, "max_lines": 100, "concurrency": 1} | options,
        )
        self.consumer.connected(StoppableChannel(self))

    async def _record(self, lines: list[Line]) -> None:
        self.batches.append([line.body for line in lines])
        await self._handle(lines)

    async def _dead_letter(self, body: bytes, *, queue: str, reason: str) -> None:
        assert queue == "q"
        if self.dead_letters_fail:
            self.dead_letters_fail -= 1
            raise Unavailable("no broker")
        self.dead.append((body, reason))
        self.history.append(f"dead {body.decode()}")

    def arrive(self, body: bytes, *, redelivered: bool = False) -> None:
        """Deliver one AMQP message."""
        self._unsettled.append(body)

        async def acknowledge(multiple: bool) -> None:
            assert body in self._unsettled, "settled twice"
            at = self._unsettled.index(body)
            settled = self._unsettled[: at + 1] if multiple else [body]
            self.acknowledged += settled
            self._unsettled = [other for other in self._unsettled if other not in settled]
            self.history.append(f"ack {body.decode()}")

        lines = [Line(line, "reply.x", "q", redelivered) for line in split_lines(body)]
        self.consumer.accept(Inbound(lines, acknowledge))

    async def settled(self, *bodies: bytes, within_s: float = 3600.0) -> None:
        """Wait until these, and no others, are acknowledged."""
        await self.until(lambda: len(self.acknowledged) >= len(bodies), within_s)
        assert sorted(self.acknowledged) == sorted(bodies)

    @staticmethod
    async def until(condition: Callable[[], bool], within_s: float = 3600.0) -> None:
        deadline_s = asyncio.get_running_loop().time() + within_s
        while not condition():
            assert asyncio.get_running_loop().time() < deadline_s, "it does not happen"
            await asyncio.sleep(0.01)


class running:
    """Run the consumer's workers until the test ends."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def __aenter__(self) -> Queue:
        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._queue.consumer.run(self._tasks)
        return self._queue

    async def __aexit__(self, *error: Any) -> None:
        if error[0] is None:
            await self._queue.consumer.stop()
        await self._tasks.__aexit__(*error)


async def done(_: list[Line]) -> None:
    """Handle lines without rejecting any."""


def test_handled_batch_is_acknowledged() -> None:
    async def test() -> None:
        async with running(Queue(done)) as queue:
            queue.arrive(b"one")
            await queue.settled(b"one")
            assert queue.dead == []

    run(test)


def test_waiting_bodies_are_one_batch_and_one_ack() -> None:
    async def test() -> None:
        async with running(Queue(done)) as queue:
            for body in (b"a\nb", b"c", b"d\ne\nf"):
                queue.arrive(body)
            await queue.settled(b"a\nb", b"c", b"d\ne\nf")
            assert queue.batches == [[b"a", b"b", b"c", b"d", b"e", b"f"]]
            assert queue.history == ["ack d\ne\nf"]

    run(test)


def test_batch_is_bounded_in_lines() -> None:
    async def test() -> None:
        async with running(Queue(done, max_lines=3)) as queue:
            for body in (b"a\nb", b"c\nd", b"1\n2\n3\n4", b"e"):
                queue.arrive(body)
            await queue.settled(b"a\nb", b"c\nd", b"1\n2\n3\n4", b"e")
            assert [len(batch) for batch in queue.batches] == [2, 2, 4, 1]

    run(test)


def test_rejected_line_is_dead_lettered_before_ack() -> None:
    async def handle(lines: list[Line]) -> None:
        for line in lines:
            if line.body.startswith(b"bad"):
                line.reject(f"{line.body.decode()} is bad")

    async def test() -> None:
        async with running(Queue(handle)) as queue:
            queue.arrive(b"good\nbad1\nbad2")
            await queue.settled(b"good\nbad1\nbad2")
            assert queue.dead == [(b"bad1", "bad1 is bad"), (b"bad2", "bad2 is bad")]
            assert queue.history == ["dead bad1", "dead bad2", "ack good\nbad1\nbad2"]

    run(test)


def test_dead_letter_is_retried_until_sent() -> None:
    async def handle(lines: list[Line]) -> None:
        lines[0].reject("bad")

    async def test() -> None:
        async with running(Queue(handle)) as queue:
            queue.dead_letters_fail = 5
            queue.arrive(b"x")
            await queue.settled(b"x")
            assert queue.dead == [(b"x", "bad")]

    run(test)


def test_unavailable_batch_is_retried_without_limit() -> None:
    marks: list[bool] = []

    async def handle(lines: list[Line]) -> None:
        marks.append(lines[0].redelivered)
        if len(marks) < 50:
            raise Unavailable("no database")

    async def test() -> None:
        async with running(Queue(handle)) as queue:
            queue.arrive(b"a\nb")
            await queue.settled(b"a\nb")
            assert queue.batches == [[b"a", b"b"]] * 50, "it is never taken apart"
            assert queue.dead == []
            assert marks == [False, *[True] * 49]
            assert asyncio.get_running_loop().time() > 40, "the pauses grow"

    run(test)


def test_failing_line_is_isolated_and_dropped_after_five_tries() -> None:
    seen: list[tuple[bytes, bool]] = []

    async def handle(lines: list[Line]) -> None:
        seen.extend((line.body, line.redelivered) for line in lines)
        if any(line.body == b"poison" for line in lines):
            raise ValueError("a bug")

    async def test() -> None:
        async with running(Queue(handle)) as queue:
            queue.arrive(b"a\npoison\nb")
            await queue.settled(b"a\npoison\nb")
            alone = [[b"a"], *[[b"poison"]] * TRIES_MAX, [b"b"]]
            assert queue.batches == [[b"a", b"poison", b"b"], *alone]
            assert TRIES_MAX == 5
            assert [body for body, _ in queue.dead] == [b"poison"]
            assert queue.history == ["dead poison", "ack a\npoison\nb"]

    run(test)
    assert not any(redelivered for _, redelivered in seen[:3])
    assert all(redelivered for _, redelivered in seen[3:]), "what is tried again may have taken effect"


def test_transient_failure_loses_nothing() -> None:
    failures = [ValueError("once"), ValueError("and again")]

    async def handle(lines: list[Line]) -> None:
        if len(lines) == 1 and failures:
            raise failures.pop()
        if len(lines) > 1:
            raise ValueError("together they fail")

    async def test() -> None:
        async with running(Queue(handle)) as queue:
            queue.arrive(b"a\nb")
            await queue.settled(b"a\nb")
            assert queue.dead == []

    run(test)


@pytest.mark.parametrize("when", ["in the handler", "while it waits", "before it is settled"])
def test_lost_connection_leaves_batch_unacknowledged(when: str) -> None:
    held = asyncio.Event()
    entered: list[Consumer] = []

    async def handle(lines: list[Line]) -> None:
        entered.append(queues[0].consumer)
        if when == "in the handler" and len(entered) == 1:
            await held.wait()
        if when == "while it waits" and len(entered) < 3:
            raise Unavailable("no database")
        if when == "before it is settled" and len(entered) == 1:
            lines[0].reject("bad")

    queues = [Queue(handle)]

    async def test() -> None:
        async with running(queues[0]) as queue:
            if when == "before it is settled":
                queue.dead_letters_fail = 10**6
            queue.arrive(b"old")
            await queue.until(lambda: len(entered) >= 1)
            queue.arrive(b"waiting")
            queue.consumer.connection_lost()
            queue.dead_letters_fail = 0
            queue.consumer.connected(StoppableChannel(queue))
            held.set()
            queue._unsettled.clear()
            queue.arrive(b"again", redelivered=True)
            await queue.settled(b"again")
            assert queue.dead == []
            assert [b"waiting"] not in queue.batches, "the broker delivers it again"

    run(test)


def test_stop_finishes_current_batch_and_returns_the_rest() -> None:
    held, entered = asyncio.Event(), asyncio.Event()

    async def handle(_: list[Line]) -> None:
        entered.set()
        await held.wait()

    async def test() -> None:
        queue = Queue(handle, max_lines=1)
        async with asyncio.TaskGroup() as tasks:
            queue.consumer.run(tasks)
            queue.arrive(b"in hand")
            queue.arrive(b"waiting")
            await entered.wait()
            stopping = tasks.create_task(queue.consumer.stop())
            await queue.until(lambda: queue.history == ["cancel"])
            queue.arrive(b"too late")
            held.set()
            await stopping
        assert queue.history == ["cancel", "ack in hand", "close"]
        assert queue.batches == [[b"in hand"]]

    run(test)


def test_stop_leaves_unavailable_batch_unacknowledged() -> None:
    async def handle(_: list[Line]) -> None:
        raise Unavailable("no database")

    async def test() -> None:
        queue = Queue(handle)
        async with asyncio.TaskGroup() as tasks:
            queue.consumer.run(tasks)
            queue.arrive(b"one")
            await queue.until(lambda: len(queue.batches) > 2)
            await queue.consumer.stop()
        assert queue.acknowledged == []
        assert queue.history == ["cancel", "close"]

    run(test)


def test_cancelled_batch_is_left_unacknowledged() -> None:
    entered = asyncio.Event()

    async def handle(_: list[Line]) -> None:
        entered.set()
        await asyncio.Event().wait()

    async def test() -> None:
        queue = Queue(handle)
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as tasks:
                queue.consumer.run(tasks)
                queue.arrive(b"one")
                await entered.wait()
                raise KeyError("the service fails")
        assert caught.group_contains(KeyError)
        assert queue.acknowledged == []
        assert queue.dead == []

    run(test)


def test_concurrent_workers_settle_only_their_bodies() -> None:
    held = asyncio.Event()

    async def handle(lines: list[Line]) -> None:
        if lines[0].body == b"slow":
            await held.wait()

    async def test() -> None:
        async with running(Queue(handle, max_lines=1, concurrency=2)) as queue:
            queue.arrive(b"slow")
            queue.arrive(b"quick")
            queue.arrive(b"quicker")
            await queue.settled(b"quick", b"quicker")
            held.set()
            await queue.until(lambda: len(queue.acknowledged) == 3)
            assert queue.acknowledged[-1] == b"slow"

    run(test)
