"""In which order clients that come in are served: in that of their asking, as many at a time as `Pace` allows."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.admission.pace import Pace


class AdmissionQueue:
    """Who waits here costs its place and nothing else."""

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._waiting: deque[asyncio.Future[float]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn; it ends with the block."""
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
        """Serve who may be served now. To be called from time to time, since who takes too long counts no more."""
        now_s = self._clock()
        while self._waiting and (self._waiting[0].done() or self._pace.may_serve(now_s)):
            place = self._waiting.popleft()
            if not place.done():  # who was cancelled while waiting is
                self._pace.began(place, now_s)
                place.set_result(now_s)
        self._pace.waiting = len(self._waiting)
