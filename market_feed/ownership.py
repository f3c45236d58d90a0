"""Ownership of the symbols: one process serves, and a stand-by takes over.

A process that cannot renew its lease in time stops accepting ticks. If it still holds the lease when the database is
available again, it continues; otherwise it drops its state and stands by.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from market_feed import metrics
from market_feed.lease import BEAT_S, LeaseMonitor, LeaseState
from market_feed.store import MarketStore
from shared.errors import Unavailable
from shared.telemetry import logs
from shared.waiting import is_set_within, until_next

log = logs.get(__name__)

BEATS_PER_LENGTH = 5  # at least this many heartbeats during the length of the lease

Serve = Callable[[int, asyncio.Event], Awaitable[None]]


class Lifeline(Protocol):
    """The proof that a process is connected to the broker; `shared.bus.liveness_queue.LivenessQueue` implements it."""

    @property
    def queue(self) -> str | None:
        """Return the name of the queue that ends with this process's connection; None while not connected."""

    async def is_gone(self, queue: str) -> bool:
        """Return whether the broker has no such queue; False if it does not answer at once."""


class Ownership:
    """Takes the lease, holds it while `serve` runs, and releases it."""

    def __init__(
        self,
        store: MarketStore,
        lifeline: Lifeline,
        node_id: str,
        length_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock_s = clock_s
        self._store = store
        self._lifeline = lifeline
        self._node_id = node_id
        self._length_s = length_s
        self._beat_s = min(length_s / BEATS_PER_LENGTH, BEAT_S)
        self._watch = LeaseMonitor(length_s)
        self._held_until_s = 0.0
        metrics.LEASE_SECONDS.set_function(lambda: max(self._held_until_s - clock_s(), 0.0))
        self.is_serving = False  # set by `serve` once it answers queries

    def owns(self) -> bool:
        """Return whether this process holds the lease."""
        return self._clock_s() < self._held_until_s

    async def readiness(self) -> str | None:
        """Return None if this process serves or stands by for a live owner; otherwise the reason."""
        if self.is_serving or self._watch.owner_lives:
            return None
        return "market: no process serves the symbols yet"

    async def run(self, stop: asyncio.Event, serve: Serve) -> None:
        """Run `serve(term, ended)` for each term that this process owns, until `stop` is set.

        `serve` must return soon after `ended` is set, by `stop`, by `serve` itself, or because the lease is lost.
        """
        while (term := await self._take(stop)) is not None:
            log.info("symbols_taken", term=term)
            metrics.OWNER.set(1)
            try:
                await self._serve_term(term, stop, serve)
            finally:
                self.is_serving = False
                metrics.OWNER.set(0)
            await self._release(term)
            log.info("symbols_released", term=term)

    async def _serve_term(self, term: int, stop: asyncio.Event, serve: Serve) -> None:
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            helpers = (
                tasks.create_task(self._renew(term, ended), name="renew"),
                tasks.create_task(_set_after(stop, ended), name="stop"),
            )
            await serve(term, ended)
            for helper in helpers:
                helper.cancel()

    async def _take(self, stop: asyncio.Event) -> int | None:
        """Wait for the lease and return its term; None if stopped first."""
        while not stop.is_set():
            try:
                if (taken := await self._try_take()) is not None:
                    return taken
            except Unavailable as error:
                self._watch.unreadable()
                log.warning("lease_not_read", reason=str(error))
            await is_set_within(stop, self._watch.look_again_s)
        return None

    async def _try_take(self) -> int | None:
        """Take the lease if it is free or its holder is dead, and return its term. Raises Unavailable.

        A process without a broker connection does not take it: it could not serve, and its death would go unnoticed.
        """
        seen = await self._store.lease()
        state = self._watch.judge(seen, self._clock_s())
        if state is LeaseState.HELD:
            return None
        if state is LeaseState.DOUBTED and (seen.queue is None or not await self._lifeline.is_gone(seen.queue)):
            return None
        if self._lifeline.queue is None:
            return None
        asked_s = self._clock_s()
        taken = await self._store.take_lease(seen, self._node_id, self._lifeline.queue)
        if taken is None:  # a heartbeat, or another stand-by, was faster
            return None
        self._held_until_s = asked_s + self._length_s
        return taken.term

    async def _renew(self, term: int, ended: asyncio.Event) -> None:
        beat = 0
        while True:
            await until_next(self._beat_s)
            asked_s = self._clock_s()
            owned = self.owns()
            beat += 1
            try:
                if not await self._store.beat(term, beat, self._node_id, self._lifeline.queue):
                    self._held_until_s = 0.0
                    log.warning("symbols_lost", term=term)
                    ended.set()
                    return
            except Unavailable as error:
                if owned and not self.owns():
                    log.warning("ticks_paused", reason=str(error))
                continue
            self._held_until_s = asked_s + self._length_s
            if not owned:
                log.info("ticks_resumed", term=term)

    async def _release(self, term: int) -> None:
        self._held_until_s = 0.0
        try:
            await self._store.release_lease(term, self._node_id)
        except Unavailable as error:
            log.warning("lease_not_released", reason=str(error))


async def _set_after(first: asyncio.Event, then: asyncio.Event) -> None:
    await first.wait()
    then.set()
