"""FIFO concurrency limiter for connection set-up; `Pace` sets the limit."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.admission.pace import Pace


class AdmissionQueue:
    """Hands out turns in order of arrival. A waiter is one future: no task, no timer."""

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._waiting: deque[asyncio.Future[float]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it for the duration of the block."""
        place: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self.call()
        try:
            await place
            yield
        finally:
            if not place.cancelled():
                self._pace.ended(place, self._clock() - place.result())
            self.call()

    def call(self) -> None:
        """Start as many waiters as the limit allows. Call it regularly: a turn that takes too long stops counting."""
        now_s = self._clock()
        while self._waiting and (self._waiting[0].done() or self._pace.may_serve(now_s)):
            place = self._waiting.popleft()
            if not place.done():  # done: cancelled while waiting
                self._pace.began(place, now_s)
                place.set_result(now_s)
        self._pace.waiting = len(self._waiting)
