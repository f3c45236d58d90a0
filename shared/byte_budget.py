"""A budget of bytes in memory, so that large reads and slow readers cannot fill a process.

async with budget.held(user_id, size_bytes) as hold: ...   # until the end of the block
hold = await budget.hold(user_id, size_bytes)              # until `hold.release()`
hold.resize(size_bytes)                                    # once the size is known
hold.begin_sending(evict); hold.sent(count)                # a client reads it, perhaps slowly
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from shared.errors import ErrorCode, Refusal
from shared.telemetry import metrics

WAITING_MAX = 1_000
WAITING_PER_USER_MAX = 32
WAIT_MAX_S = 5.0
LOOK_S = 0.5
PATIENCE_S = 5.0
SLOWEST_BYTES_PER_S = 64 * 1024  # the slowest reader that may hold its bytes while others wait for them


@dataclass(slots=True, eq=False)
class Hold:
    """Bytes that a user holds. A hold is evicted only while it is being sent, and only if another caller waits."""

    budget: "ByteBudget"
    user_id: str
    size_bytes: int
    evict: Callable[[], object] | None = None
    evictable_from_s: float = 0.0
    is_released: bool = False

    def resize(self, size_bytes: int) -> None:
        """Hold `size_bytes` bytes from now on. Never waits, so the budget may be exceeded."""
        if not self.is_released:
            self.budget.resize(self, size_bytes)

    def begin_sending(self, evict: Callable[[], object]) -> None:
        """Make the hold evictable, by `evict`, after 5 s; `sent` extends this."""
        if not self.is_released:
            self.evict = evict
            self.evictable_from_s = asyncio.get_running_loop().time() + PATIENCE_S
            self.budget.sending[self] = None

    def sent(self, size_bytes: int) -> None:
        """Record progress: extend the grace by `size_bytes` / 64 KB/s, to at most 5 s from now."""
        patient_until_s = asyncio.get_running_loop().time() + PATIENCE_S
        self.evictable_from_s = min(self.evictable_from_s + size_bytes / SLOWEST_BYTES_PER_S, patient_until_s)

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
    """At most `total_bytes` are held at a time, and `user_bytes` by one user; `name` is for metrics.

    Waiters are served in order, except that a waiter whose user's share is used up lets others pass. While a caller
    waits, a client that reads less than 64 KB/s is evicted after 5 s. Bound: 1,000 waiters, 32 of one user, each for
    5 s; beyond that `hold` is refused. Without shares (`user_bytes` as large as `total_bytes`) all wait alike.
    """

    def __init__(self, name: str, total_bytes: int, user_bytes: int) -> None:
        self.sending: dict[Hold, None] = {}
        self.held_bytes = 0
        self._name = name
        self._total_bytes = total_bytes
        self._user_bytes = min(user_bytes, total_bytes)
        self._by_user: dict[str, int] = {}
        self._waiting: list[_Waiter] = []
        metrics.BYTES_HELD.labels(name).set_function(lambda: self.held_bytes)

    @asynccontextmanager
    async def held(self, user_id: str, size_bytes: int) -> AsyncIterator[Hold]:
        """Hold bytes during the block. Raises Refusal as `hold` does."""
        hold = await self.hold(user_id, size_bytes)
        try:
            yield hold
        finally:
            hold.release()

    async def hold(self, user_id: str, size_bytes: int) -> Hold:
        """Wait for bytes and hold them, at most the share of a user.

        Raises Refusal: RATE_LIMITED when too many calls of the user wait, UNAVAILABLE after 5 s.
        """
        hold = Hold(self, user_id, min(size_bytes, self._user_bytes))
        if not self._waiting and self._fits(hold):
            self._count(hold, hold.size_bytes)
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
        self.sending.pop(hold, None)
        self._count(hold, -hold.size_bytes)
        self._serve()

    def _enqueue(self, hold: Hold) -> _Waiter:
        has_shares = self._user_bytes < self._total_bytes
        if has_shares and sum(waiter.hold.user_id == hold.user_id for waiter in self._waiting) >= WAITING_PER_USER_MAX:
            raise self._refusal(ErrorCode.RATE_LIMITED, "too many reads at once")
        if len(self._waiting) >= WAITING_MAX:
            raise self._refusal(ErrorCode.UNAVAILABLE, "too many reads are under way")
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
                raise self._refusal(ErrorCode.UNAVAILABLE, "too many reads are under way")
            await asyncio.wait({waiter.granted}, timeout=min(left_s, LOOK_S))
            if not waiter.granted.done():
                self._evict_for(waiter.hold, loop.time())

    def _evict_for(self, wanted: Hold, now_s: float) -> None:
        """Evict one hold that blocks the wanted one: a hold of the same user if their share is used up."""
        is_own = self._exceeds_share(wanted)
        for hold in self.sending:
            if hold.evictable_from_s <= now_s and (not is_own or hold.user_id == wanted.user_id):
                metrics.BYTES_EVICTED.labels(self._name).inc()
                if hold.evict is not None:
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
            if not waiter.granted.cancelled():
                self._count(waiter.hold, waiter.hold.size_bytes)
                waiter.granted.set_result(None)

    def _fits(self, hold: Hold) -> bool:
        return self.held_bytes + hold.size_bytes <= self._total_bytes and not self._exceeds_share(hold)

    def _exceeds_share(self, hold: Hold) -> bool:
        held_bytes = self._by_user.get(hold.user_id, 0)
        return held_bytes > 0 and held_bytes + hold.size_bytes > self._user_bytes

    def _count(self, hold: Hold, change_bytes: int) -> None:
        self.held_bytes += change_bytes
        left = self._by_user.get(hold.user_id, 0) + change_bytes
        if left > 0:
            self._by_user[hold.user_id] = left
        else:
            self._by_user.pop(hold.user_id, None)

    def _refusal(self, code: ErrorCode, message: str) -> Refusal:
        metrics.BYTES_REFUSED.labels(self._name, code).inc()
        return Refusal.overload(code, message)
