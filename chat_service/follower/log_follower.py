"""Hands every entry of the rooms of this process to consumers: at least once, in rev order for each room.

    commit ──> note (a list append) ──> backlog ──> every 0.25 s: a batch ──> consumers, one after another ──> position

A consumer is called again with the same entries after a failure, after the death of an owner, and when an owner
recovers rooms; it is idempotent by the id or the rev of an entry. While it raises Unavailable, nothing is handed over;
a full backlog forgets entries, which are read from the log again, so nothing is lost.

A new owner finds the unfinished rooms of a killed owner without waiting for activity there. It compares the saved
positions of all rooms touched since the partition's checkpoint with their logs, and hands over the difference before
anything newer. An owner that was frozen may commit one more entry after it was replaced, so the new owner looks once
more a minute later.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from chat_service import metrics
from chat_service.follower.backlog import Backlog, EntrySpan
from chat_service.follower.consumer import EntryConsumer, RoomBatch
from chat_service.rooms.log import LogEntry
from chat_service.rooms.room import Room
from shared.bus.topology import partition_of
from shared.errors import Unavailable
from shared.mongo import DOCUMENTS_MAX, chunks
from shared.telemetry import logs
from shared.waiting import until_next

log = logs.get(__name__)

INTERVAL_S = 0.25
SAVE_MS = 20_000  # interval between writes of a busy room's position: 20 writes a second for 400 rooms
TOUCHED_FOR_MS = 30_000
CHECKPOINT_SLACK_MS = 60_000  # longer than a mark of activity holds and a commit takes
LOOK_BACK_MS = 600_000  # without a checkpoint
LOOK_AGAIN_MS = 60_000  # a process that was frozen for longer ends when it thaws
UNKNOWN_START_REVS = 1_000
FAILURES_MAX = 3
FINISH_S = 2.0
ROOMS_PER_STEP = 20
STEP_PAUSE_S = 0.02


class EntryReader(Protocol):
    """The part of the log store that the follower needs."""

    async def between(self, room_id: str, after: int, through: int) -> list[LogEntry]:
        """Return the entries with `after` < rev ≤ `through`, oldest first."""


class ActiveRooms(Protocol):
    """The part of the room store that the follower needs."""

    async def rooms_active_since(self, at_ms: int) -> list[Room]:
        """Return the rooms whose records show a message since then."""

    async def rooms(self, room_ids: Collection[str]) -> dict[str, Room]:
        """Return the rooms that have a record."""


class Positions(Protocol):
    """The part of the position store that the follower needs; see there."""

    async def save(self, positions: Mapping[str, int], at_ms: int) -> None:
        """Move the positions of rooms forward."""

    async def touch(self, room_ids: Collection[str], at_ms: int) -> None:
        """Note that entries of these rooms are being committed."""

    async def touched_since(self, at_ms: int) -> list[str]:
        """Return the rooms that were touched since then."""

    async def positions(self, room_ids: Collection[str]) -> dict[str, int]:
        """Return the last rev handed over by room."""

    async def checkpoints(self, partitions: Collection[int]) -> dict[int, int]:
        """Return the checkpoints of those partitions that have one."""

    async def save_checkpoints(self, partitions: Collection[int], at_ms: int) -> None:
        """Move the checkpoints of partitions forward."""


class LogFollower:
    """The follower of a process. `note` and `touch` are called by partitions, `run` by the composition root."""

    def __init__(
        self,
        room_log: EntryReader,
        rooms: ActiveRooms,
        positions: Positions,
        consumers: Sequence[EntryConsumer],
        clock_ms: Callable[[], int],
    ) -> None:
        self._log = room_log
        self._rooms = rooms
        self._positions = positions
        self._consumers = consumers
        self._clock_ms = clock_ms
        self._backlog = Backlog()
        self._terms: dict[int, int] = {}  # of the partitions that are followed
        self._unrecovered: dict[int, int] = {}  # partitions, and when to look through their rooms
        self._following: set[int] = set()
        self._touched_at_ms: dict[str, int] = {}
        self._unsaved: dict[str, int] = {}
        self._saved_at_ms = 0  # a new checkpoint is due
        self._failures = 0
        metrics.FOLLOWER_LAG_SECONDS.set_function(self.lag_s)

    def lag_s(self) -> float:
        """Return the time for which the oldest entry has waited."""
        now_ms = self._clock_ms()
        return max(now_ms - self._backlog.oldest_ms(now_ms), 0) / 1000

    # For partitions -------------------------------------------------------------------------------------------------

    def note(self, entries: Sequence[LogEntry]) -> None:
        """Take entries that are in the log."""
        self._backlog.note(entries, self._clock_ms())

    async def touch(self, entries: Sequence[LogEntry]) -> None:
        """Record durably, before the commit, the rooms that get an entry other than a message. Raises Unavailable.

        A write at most once in 30 s for a room. Rooms with messages are marked as active in their records anyway.
        """
        now_ms = self._clock_ms()
        rooms = {entry.room_id for entry in entries if entry.message is None}
        due = [one for one in rooms if self._touched_at_ms.get(one, 0) <= now_ms - TOUCHED_FOR_MS]
        if not due:
            return
        await self._positions.touch(due, now_ms)
        self._touched_at_ms.update(dict.fromkeys(due, now_ms))

    # The loop -------------------------------------------------------------------------------------------------------

    async def run(self, owned: Callable[[], Mapping[int, int]]) -> None:
        """Hand over until cancelled. `owned` returns the terms of the partitions whose records are repaired."""
        while True:
            await until_next(INTERVAL_S)
            try:
                await self.step(owned())
            except Unavailable as error:
                log.warning("follower_postponed", reason=str(error), lag_s=round(self.lag_s(), 1))

    async def step(self, owned: Mapping[int, int]) -> None:
        """Follow the partitions of these terms: recover new ones, hand over, save. Raises Unavailable."""
        now_ms = self._clock_ms()
        self._follow(owned, now_ms)
        due = [one for one, at_ms in self._unrecovered.items() if at_ms <= now_ms]
        if due:
            await self._recover(due)
        while spans := self._backlog.take(self._is_followed):
            await self._hand_over(spans)
            await self._save_if_due()
        await self._save_if_due()

    async def _save_if_due(self) -> None:
        now_ms = self._clock_ms()
        if now_ms - self._saved_at_ms >= SAVE_MS:
            self._saved_at_ms = now_ms
            await self._save(now_ms)

    def _follow(self, owned: Mapping[int, int], now_ms: int) -> None:
        lost = {one for one, term in self._terms.items() if owned.get(one) != term}
        claimed = [one for one, term in owned.items() if self._terms.get(one) != term]
        if lost:
            self._backlog.drop(lambda room_id: partition_of(room_id) in lost)
        self._following -= lost
        for partition in lost:
            self._unrecovered.pop(partition, None)
        self._unrecovered |= dict.fromkeys(claimed, now_ms)
        self._terms = dict(owned)
        self._touched_at_ms = {
            room: at_ms for room, at_ms in self._touched_at_ms.items() if at_ms > now_ms - TOUCHED_FOR_MS
        }

    def _is_followed(self, room_id: str) -> bool:
        return partition_of(room_id) in self._following

    async def finish(self) -> None:
        """Hand over waiting entries and save, because the process stops. After a failure, the next owner recovers."""
        try:
            async with asyncio.timeout(FINISH_S):
                while spans := self._backlog.take(self._is_followed):
                    await self._hand_over(spans)
                for consumer in self._consumers:
                    await consumer.finish()
                await self._save(self._clock_ms())
        except (Unavailable, TimeoutError) as error:
            log.warning("follower_not_finished", reason=str(error) or "no answer in time")

    # Handing over ---------------------------------------------------------------------------------------------------

    async def _hand_over(self, spans: Sequence[EntrySpan]) -> None:
        batches: list[RoomBatch] = []
        for span in spans:
            entries = span.entries
            if entries is None:
                entries = await self._log.between(span.room_id, span.after, span.through)
            if entries:  # retention may have removed old ones
                batches.append(RoomBatch(span.room_id, entries))
        started_s = time.perf_counter()
        await self._consume(batches)
        metrics.FOLLOWER_SECONDS.observe(time.perf_counter() - started_s)
        metrics.FOLLOWED_ENTRIES.inc(sum(len(batch.entries) for batch in batches))
        for span in spans:
            self._backlog.done(span.room_id, span.through)
            self._unsaved[span.room_id] = span.through

    async def _consume(self, batches: Sequence[RoomBatch]) -> None:
        """Give a batch to all consumers. After three failures, give each room alone and skip those that fail.

        A failure other than Unavailable is a bug; it must neither stop the process nor hold up all rooms.
        """
        try:
            await self._give(batches)
        except Unavailable:
            raise
        except Exception as error:
            self._failures += 1
            log.exception("consumer_failed", failures=self._failures, rooms=len(batches))
            if self._failures < FAILURES_MAX:
                raise Unavailable("a consumer of log entries failed") from error
            await self._consume_each(batches)
        self._failures = 0

    async def _consume_each(self, batches: Sequence[RoomBatch]) -> None:
        for batch in batches:
            try:
                await self._give([batch])
            except Unavailable:
                raise
            except Exception:
                log.exception("entries_skipped", entries=len(batch.entries))

    async def _give(self, batches: Sequence[RoomBatch]) -> None:
        for consumer in self._consumers:
            await consumer.take(batches)

    async def _save(self, now_ms: int) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        try:
            await self._positions.save(unsaved, now_ms)
            await self._positions.save_checkpoints(list(self._following), self._backlog.checkpoint_ms(now_ms))
        except BaseException:
            self._unsaved = unsaved | self._unsaved
            raise

    # Recovery -------------------------------------------------------------------------------------------------------

    async def _recover(self, partitions: Sequence[int]) -> None:
        """Enqueue the rooms of these partitions whose logs extend beyond their positions. Raises Unavailable."""
        now_ms = self._clock_ms()
        checkpoints = await self._positions.checkpoints(partitions)
        since_ms = min(checkpoints.get(one, now_ms - LOOK_BACK_MS) for one in partitions)
        active = [room.id for room in await self._rooms.rooms_active_since(since_ms - CHECKPOINT_SLACK_MS)]
        touched = await self._positions.touched_since(since_ms - CHECKPOINT_SLACK_MS)
        mine = [room_id for room_id in {*active, *touched} if partition_of(room_id) in partitions]
        found = 0
        for number, some in enumerate(chunks(mine, ROOMS_PER_STEP)):
            if number:
                await asyncio.sleep(STEP_PAUSE_S)
            positions = await self._positions.positions(some)
            resumed = (self._resume(room_id, positions.get(room_id), since_ms) for room_id in some)
            found += sum(await asyncio.gather(*resumed))
        if found:
            log.info("follower_recovered", rooms=found)
        for partition in partitions:
            if partition in self._following:
                del self._unrecovered[partition]
            else:
                self._following.add(partition)
                self._saved_at_ms = 0
                self._unrecovered[partition] = now_ms + LOOK_AGAIN_MS

    async def _resume(self, room_id: str, position: int | None, checkpoint_ms: int) -> bool:
        """Enqueue a room whose log extends beyond its position; without one, start near the end of the log."""
        if position is None:
            record = (await self._rooms.rooms([room_id])).get(room_id)
            position = max(record.rev - UNKNOWN_START_REVS, 0) if record is not None else 0
        through = position
        while some := await self._log.between(room_id, through, through + DOCUMENTS_MAX):
            through = some[-1].rev
            if len(some) < DOCUMENTS_MAX:
                break
        self._backlog.resume(room_id, position, through, self._clock_ms(), checkpoint_ms)
        return through > position
