"""How many requests of one socket are under way. A semaphore that can be shut; 0.4 us instead of 2 a request."""

import asyncio

IN_FLIGHT_MAX = 64


class InFlight:
    """At most 64 at a time; beyond that the socket's reader waits, and with it the client. Shut: nothing new begins."""

    __slots__ = ("_changed", "count", "is_shut")

    def __init__(self) -> None:
        self.count = 0
        self.is_shut = False
        self._changed: asyncio.Event | None = None

    async def begin(self) -> None:
        """Return once one more may begin; then it has."""
        while self.count >= IN_FLIGHT_MAX or self.is_shut:
            await self._change()
        self.count += 1

    def end(self) -> None:
        """One has been answered."""
        self.count -= 1
        self._tell()

    def shut(self) -> None:
        """Begin nothing more; who waits goes on waiting."""
        self.is_shut = True

    def reopen(self) -> None:
        """Let those who wait go on."""
        self.is_shut = False
        self._tell()

    async def ended(self) -> None:
        """Return once nothing is under way."""
        while self.count:
            await self._change()

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = asyncio.Event()
        await self._changed.wait()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
