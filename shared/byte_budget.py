"""A budget of bytes under way, so that reads and slow readers cannot fill a process.

async with budget.held(user_id, size_bytes): ...         # until the end of the block
hold = await budget.hold(user_id, size_bytes, evict)     # until `hold.release()`
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.errors import ErrorCode, Refusal

WAITING_MAX = 1_000
WAITING_PER_USER_MAX = 32
WAIT_MAX_S = 5.0
PATIENCE_S = 5.0
RETRY_AFTER_MS = 1_000


@dataclass(slots=True, eq=False)
class Hold:
    """Bytes that a user holds. `evict` ends what holds them; without it they are released soon anyway."""

    budget: "ByteBudget"
    user_id: str
    size_bytes: int
    evict: Callable[[], object] | None
    since_s: float = 0.0
    is_released: bool = False

    def resize(self, size_bytes: int) -> None:
        """Hold so many bytes from now on: the size is known."""
        if not self.is_released:
            self.budget.resize(self, size_bytes)

    def release(self) -> None:
        """Return the bytes to the budget. Idempotent."""
        if not self.is_released:
            self.is_released = True
            self.budget.give_back(self)


@dataclass(slots=True, eq=False)
class _Waiter:
    hold: Hold
    granted: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ByteBudget:
    """At most `total_bytes` are held at a time, and `user_bytes` by one user.

    Waiters are served in order, except that one whose user's share is used up lets others pass. A hold of over 5 s that
    can be evicted is evicted when somebody waits for its bytes. Bound: 1,000 waiters, 32 of one user, each for 5 s;
    beyond that `hold` is refused.
    """

    def __init__(self, total_bytes: int, user_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._user_bytes = min(user_bytes, total_bytes)
        self.held_bytes = 0
        self._by_user: dict[str, int] = {}
        self._evictable: dict[Hold, None] = {}  # oldest first
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def held(self, user_id: str, size_bytes: int) -> AsyncIterator[None]:
        """Hold bytes during the block. Raises Refusal as `hold` does."""
        hold = await self.hold(user_id, size_bytes)
        try:
            yield
        finally:
            hold.release()

    async def hold(self, user_id: str, size_bytes: int, evict: Callable[[], object] | None = None) -> Hold:
        """Wait for bytes and hold them; more than the share of a user count as the share.

        Raises Refusal: RATE_LIMITED when too many calls of the user wait, UNAVAILABLE after 5 s.
        """
        hold = Hold(self, user_id, min(size_bytes, self._user_bytes), evict)
        if not self._waiting and self._fits(hold):
            self._grant(hold)
            return hold
        waiter = self._enqueue(hold)
        try:
            await self._wait(waiter)
        except BaseException:
            if waiter.granted.done() and not waiter.granted.cancelled():
                hold.release()
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._serve()
        return hold

    def resize(self, hold: Hold, size_bytes: int) -> None:
        """Change the size of a hold; see `Hold.resize`."""
        self._count(hold, size_bytes - hold.size_bytes)
        hold.size_bytes = size_bytes
        self._serve()

    def give_back(self, hold: Hold) -> None:
        """Take back the bytes of a hold; see `Hold.release`."""
        self._evictable.pop(hold, None)
        self._count(hold, -hold.size_bytes)
        self._serve()

    def _enqueue(self, hold: Hold) -> _Waiter:
        if sum(waiter.hold.user_id == hold.user_id for waiter in self._waiting) >= WAITING_PER_USER_MAX:
            raise Refusal(ErrorCode.RATE_LIMITED, "too many reads at once", retry_after_ms=RETRY_AFTER_MS)
        if len(self._waiting) >= WAITING_MAX:
            raise _unavailable()
        waiter = _Waiter(hold)
        self._waiting.append(waiter)
        self._serve()
        return waiter

    async def _wait(self, waiter: _Waiter) -> None:
        loop = asyncio.get_running_loop()
        gives_up_at_s = loop.time() + WAIT_MAX_S
        while not waiter.granted.done():
            left_s = gives_up_at_s - loop.time()
            if left_s <= 0:
                raise _unavailable()
            await asyncio.wait({waiter.granted}, timeout=min(left_s, PATIENCE_S / 5))
            if not waiter.granted.done():
                self._evict_for(waiter.hold, loop.time())

    def _evict_for(self, wanted: Hold, now_s: float) -> None:
        """Evict the oldest hold that stands in the way: one of the same user if their share is used up."""
        is_own = self._exceeds_share(wanted)
        for hold in self._evictable:
            if now_s - hold.since_s < PATIENCE_S:
                return
            if (not is_own or hold.user_id == wanted.user_id) and hold.evict is not None:
                hold.evict()
                hold.release()
                return

    def _serve(self) -> None:
        for waiter in list(self._waiting):
            if self._exceeds_share(waiter.hold):
                continue
            if not self._fits(waiter.hold):
                return
            self._waiting.remove(waiter)
            if waiter.granted.cancelled():
                continue
            self._grant(waiter.hold)
            waiter.granted.set_result(None)

    def _grant(self, hold: Hold) -> None:
        self._count(hold, hold.size_bytes)
        hold.since_s = asyncio.get_running_loop().time()
        if hold.evict is not None:
            self._evictable[hold] = None

    def _fits(self, hold: Hold) -> bool:
        return self.held_bytes + hold.size_bytes <= self._total_bytes and not self._exceeds_share(hold)

    def _exceeds_share(self, hold: Hold) -> bool:
        return self._by_user.get(hold.user_id, 0) + hold.size_bytes > self._user_bytes

    def _count(self, hold: Hold, change_bytes: int) -> None:
        self.held_bytes += change_bytes
        left = self._by_user.get(hold.user_id, 0) + change_bytes
        if left > 0:
            self._by_user[hold.user_id] = left
        else:
            self._by_user.pop(hold.user_id, None)


def _unavailable() -> Refusal:
    return Refusal(ErrorCode.UNAVAILABLE, "too many reads are under way", retry_after_ms=RETRY_AFTER_MS)
