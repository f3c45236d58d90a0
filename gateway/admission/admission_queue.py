"""FIFO concurrency limiter for connection set-up; `Pace` sets the limit."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.admission.pace import Pace


class AdmissionQueue:
    """Grants set-up slots in order of arrival. A waiter is one future: no task, no timer."""

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._waiting: deque[asyncio.Future[float]] = deque()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it for the duration of the block."""
        slot: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        self.grant()
        try:
            await slot
            yield
        finally:
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
