"""Hands entries to one consumer, at its own pace, and notes the last rev handled of each room.

While a consumer raises Unavailable, all its entries wait, and those of the other consumers do not. Any other exception
is a bug; it must neither stop the process nor hold up other rooms. So after it each room is given alone, and one that
fails is retried a second later. After three failures in a row its entries are given one at a time: one that fails is
skipped, except an entry that erases something. That one is retried until it succeeds, and the lag of the consumer shows
it: deleted text must not stay because of a bug.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from chat_service import metrics
from chat_service.follower.backlog import EntrySpan
from chat_service.follower.consumer import EntryConsumer, RoomBatch
from chat_service.follower.consumer_queue import ConsumerQueue
from chat_service.rooms.changes import Erasure
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.storage.documents import NewerDocument
from shared.backoff import Backoff
from shared.errors import Unavailable
from shared.telemetry import logs

log = logs.get(__name__)

FAILURES_MAX = 3
RETRY_MS = 1_000
BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 3.0


class EntryReader(Protocol):
    """The part of the log store that the follower needs."""

    async def between(self, room_id: str, after: int, through: int) -> list[LogEntry]:
        """Return the entries with `after` < rev ≤ `through`, oldest first."""

    async def revs(self, room_id: str, after: int, through: int) -> list[int]:
        """Return the revs of these entries."""


class ConsumerFeed:
    """The entries of one consumer, and its progress. `offer` and `wake` are called by the follower."""

    def __init__(self, consumer: EntryConsumer, room_log: EntryReader, clock_ms: Callable[[], int]) -> None:
        self.name = consumer.name
        self._consumer = consumer
        self._log = room_log
        self._clock_ms = clock_ms
        self._queue = ConsumerQueue()
        self._unsaved: dict[str, int] = {}
        self._failures: dict[str, int] = {}  # in a row, by room
        self._retry_at_ms: dict[str, int] = {}  # by failing room
        self._woken = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def oldest_ms(self, now_ms: int) -> int:
        """Return the time at which the longest-waiting room began to wait; `now_ms` if none waits."""
        return self._queue.oldest_ms(now_ms)

    def checkpoint_ms(self, now_ms: int) -> int:
        """Return the latest time that a checkpoint may have so that a new owner still finds every waiting room."""
        return self._queue.checkpoint_ms(now_ms)

    def offer(self, span: EntrySpan, safe_ms: int | None = None) -> None:
        """Take the next entries of a room.

        Until they are handed over, no checkpoint later than `safe_ms` may be saved.
        """
        if span.entries is not None:
            span = span._replace(entries=self._consumer.wanted(span.entries))
            if not span.entries and not self._queue.has(span.room_id):
                self._unsaved[span.room_id] = span.through
                return
        self._queue.put(span, span.since_ms if safe_ms is None else safe_ms)

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        """Forget the rooms of partitions that another process owns now."""
        self._queue.drop(is_lost)
        self._consumer.drop(is_lost)
        for room_id in [room_id for room_id in self._retry_at_ms if is_lost(room_id)]:
            del self._retry_at_ms[room_id]
            self._failures.pop(room_id, None)

    def take_unsaved(self) -> dict[str, int]:
        """Return the positions that are not saved yet; the caller saves them, or gives them back."""
        unsaved, self._unsaved = self._unsaved, {}
        return unsaved

    def give_back_unsaved(self, positions: Mapping[str, int]) -> None:
        """Keep positions that could not be saved, unless there are newer ones."""
        self._unsaved = {**positions, **self._unsaved}

    # The loop -------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let `run` hand over what waits."""
        if not self._queue.is_empty:
            self._woken.set()

    async def run(self) -> None:
        """Hand over until cancelled."""
        backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self.step()
                backoff.reset()
            except Unavailable as error:
                now_ms = self._clock_ms()
                lag_s = round((now_ms - self.oldest_ms(now_ms)) / 1000, 1)
                log.warning("consumer_postponed", consumer=self.name, reason=str(error), lag_s=lag_s)
                await asyncio.sleep(backoff.next_s())
                self._woken.set()

    async def step(self) -> None:
        """Hand over what waits. Raises Unavailable."""
        async with self._one_at_a_time:
            while spans := self._queue.take(self._is_due):
                await self._hand_over(spans)

    async def finish(self, timeout_s: float) -> None:
        """Hand over what waits and let the consumer write what it deferred.

        The next owner recovers whatever fails here.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.step()
                await self._consumer.finish()
        except (Unavailable, TimeoutError) as error:
            log.warning("consumer_not_finished", consumer=self.name, reason=str(error) or "no answer in time")

    def _is_due(self, room_id: str) -> bool:
        return not self._retry_at_ms or self._retry_at_ms.get(room_id, 0) <= self._clock_ms()

    # Handing over ---------------------------------------------------------------------------------------------------

    async def _hand_over(self, spans: Sequence[EntrySpan]) -> None:
        batches: list[RoomBatch] = []
        stopped: dict[str, int] = {}
        for span in spans:
            try:
                entries = await self._entries_of(span)
            except NewerDocument as error:
                log.error("room_not_readable", consumer=self.name, room_id=span.room_id, reason=str(error))
                self._retry_at_ms[span.room_id] = self._clock_ms() + RETRY_MS
                stopped[span.room_id] = span.after
                continue
            if entries:  # retention may have removed old ones
                batches.append(RoomBatch(span.room_id, entries))
        started_s = time.perf_counter()
        stopped |= await self._consume(batches)
        metrics.FOLLOWER_SECONDS.labels(self.name).observe(time.perf_counter() - started_s)
        metrics.FOLLOWED_ENTRIES.labels(self.name).inc(sum(len(batch.entries) for batch in batches))
        for span in spans:
            through = stopped.get(span.room_id, span.through)
            if through > span.after:
                self._queue.done(span.room_id, through)
                self._unsaved[span.room_id] = through

    async def _entries_of(self, span: EntrySpan) -> Sequence[LogEntry]:
        if span.entries is not None:
            return span.entries
        return self._consumer.wanted(await self._log.between(span.room_id, span.after, span.through))

    async def _consume(self, batches: Sequence[RoomBatch]) -> dict[str, int]:
        """Give batches to the consumer. Return the last rev handled of each failing room."""
        try:
            if len(batches) != 1:
                try:
                    await self._give(batches)
                    return {}
                except Unavailable:
                    raise
                except Exception:
                    log.exception("consumer_failed", consumer=self.name, rooms=len(batches))
            stopped = {batch.room_id: await self._consume_room(batch) for batch in batches}
        except Unavailable:
            self._failures.clear()
            raise
        return {room_id: rev for room_id, rev in stopped.items() if rev is not None}

    async def _give(self, batches: Sequence[RoomBatch]) -> None:
        if batches:
            await self._consumer.take(batches)
        if self._retry_at_ms:
            for batch in batches:
                self._failures.pop(batch.room_id, None)
                self._retry_at_ms.pop(batch.room_id, None)

    async def _consume_room(self, batch: RoomBatch) -> int | None:
        """Give the batch of one room. Return None if every entry was handled, else the last rev handled."""
        try:
            await self._give([batch])
        except Unavailable:
            raise
        except Exception:
            failures = self._failures[batch.room_id] = self._failures.get(batch.room_id, 0) + 1
            log.exception("room_failed", consumer=self.name, room_id=batch.room_id, failures=failures)
            if failures >= FAILURES_MAX:
                return await self._consume_each(batch)
            self._retry_at_ms[batch.room_id] = self._clock_ms() + RETRY_MS
            return batch.entries[0].rev - 1
        return None

    async def _consume_each(self, batch: RoomBatch) -> int | None:
        for entry in batch.entries:
            try:
                await self._consumer.take([RoomBatch(batch.room_id, [entry])])
            except Unavailable:
                raise
            except Exception:
                where = {"consumer": self.name, "room_id": batch.room_id, "rev": entry.rev, "kind": entry.kind}
                if _erases(entry):
                    log.exception("erasure_failed", **where)
                    self._retry_at_ms[batch.room_id] = self._clock_ms() + RETRY_MS
                    return entry.rev - 1
                log.exception("entry_skipped", **where)
        self._failures.pop(batch.room_id, None)
        self._retry_at_ms.pop(batch.room_id, None)
        return None


def _erases(entry: LogEntry) -> bool:
    return isinstance(entry.change, Erasure) or entry.kind is EntryKind.DELETED
