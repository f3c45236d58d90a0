"""FIFO concurrency limiter for connection set-up; `Pace` sets the limit."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from gateway.admission.pace import Pace


class AdmissionQueue:
    """Grants set-up slots in order of arrival. A waiter is one future: no task, no timer."""

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._waiting: deque[asyncio.Future[float]] = deque()

    def slot(self) -> AbstractAsyncContextManager[None]:
        """Wait for a slot and hold it for the duration of the block."""
        return _Slot(self)

    async def acquire(self) -> "asyncio.Future[float]":
        """Wait for a slot and return it; `release` it after use."""
        slot: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        self.grant()
        try:
            await slot
        except BaseException:
            self.release(slot)
            raise
        return slot

    def release(self, slot: "asyncio.Future[float]") -> None:
        """End the use of a slot, or the wait for it."""
        if not slot.cancelled():
            self._pace.ended(slot, self._clock() - slot.result())
        self.grant()

    def grant(self) -> None:
        """Grant slots up to the limit. Call it regularly, because a slot held for too long stops counting."""
        now_s = self._clock()
        while self._waiting and (self._waiting[0].done() or self._pace.may_serve(now_s)):
            slot = self._waiting.popleft()
            if not slot.done():  # done: cancelled while waiting
                self._pace.began(slot, now_s)
                slot.set_result(now_s)
        self._pace.waiting = len(self._waiting)


class _Slot(AbstractAsyncContextManager[None]):
    """A slot for the duration of a block. HOT: a generator as a context manager takes 5 us more."""

    __slots__ = ("_queue", "_slot")

    _slot: "asyncio.Future[float]"

    def __init__(self, queue: AdmissionQueue) -> None:
        self._queue = queue

    async def __aenter__(self) -> None:
        self._slot = await self._queue.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.release(self._slot)
