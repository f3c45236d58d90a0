"""Hands every entry of the rooms of this process to consumers: at least once, in rev order for each room.

    commit ──> note (a list append) ──> backlog ──> every 0.25 s: offered to each consumer ──> its queue ──> consumer
                                                                                                   └──> its positions

Each consumer has a queue, a task and positions of its own, so a slow or failing one does not hold up the others. It
is called again with the same entries after a failure, after the death of an owner, and when an owner recovers rooms; it
is idempotent by the id or the rev of an entry. While it raises Unavailable nothing is handed over to it. Beyond 5,000
entries its queue keeps only revs, and the entries are read from the log again, so nothing is lost.

A new owner finds the rooms that a killed owner left behind without waiting for activity there. It looks at all rooms
that were touched since the partition's checkpoint, compares their saved positions with their logs, and hands over the
difference before anything newer. An owner that was frozen may complete one more commit after it was replaced, so the
new owner checks again a minute later.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

from chat_service import metrics
from chat_service.follower.backlog import Backlog, EntrySpan
from chat_service.follower.consumer import EntryConsumer
from chat_service.follower.consumer_feed import ConsumerFeed, EntryReader
from chat_service.rooms.log import LogEntry
from chat_service.rooms.room import Room
from shared.bus.topology import partition_of
from shared.errors import Unavailable
from shared.mongo import DOCUMENTS_MAX, chunks
from shared.telemetry import logs
from shared.waiting import until_next

log = logs.get(__name__)

INTERVAL_S = 0.25
SAVE_MS = 20_000  # between writes of a position of a room with a steady flow: 20 writes a second for 400 rooms
TOUCHED_FOR_MS = 30_000
CHECKPOINT_SLACK_MS = 60_000  # exceeds MARKED_FOR_MS plus the longest commit
LOOK_BACK_MS = 600_000  # without a checkpoint
# A frozen replica drops its connection and its partitions when it thaws (STALL_MS in `owned_partitions`), but the
# commit in progress may succeed before. If it was frozen for longer than this, no one looks for those entries again:
# consumers get them with the next entry of their room at the earliest.
LOOK_AGAIN_MS = 60_000
UNKNOWN_START_REVS = 1_000
FINISH_S = 2.0
ROOMS_PER_STEP = 20
STEP_PAUSE_S = 0.02


class ActiveRooms(Protocol):
    """The part of the room store that the follower needs."""

    async def rooms_active_since(self, at_ms: int) -> list[Room]:
        """Return the rooms, without deleted ones, whose records show an entry since then."""

    async def rooms(self, room_ids: Collection[str]) -> dict[str, Room]:
        """Return the rooms that have a record."""


class Positions(Protocol):
    """The part of the position store that the follower needs; see there."""

    async def save(self, positions: Mapping[str, Mapping[str, int]], at_ms: int) -> None:
        """Move positions, by room and consumer, forward."""

    async def touch(self, room_ids: Collection[str], at_ms: int) -> None:
        """Note that entries of these rooms are being committed."""

    async def touched_since(self, at_ms: int) -> list[str]:
        """Return the rooms that were touched since then."""

    async def positions(self, room_ids: Collection[str], consumers: Collection[str]) -> dict[str, dict[str, int]]:
        """Return the last rev handed over, by room and consumer."""

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
        self._feeds = [ConsumerFeed(consumer, room_log, clock_ms) for consumer in consumers]
        self._clock_ms = clock_ms
        self._backlog = Backlog()
        self._terms: dict[int, int] = {}  # of the partitions that are followed
        self._unrecovered: dict[int, int] = {}  # partitions, and when to look through their rooms
        self._following: set[int] = set()
        self._touched_at_ms: dict[str, int] = {}
        self._saved_at_ms = 0  # a new checkpoint is due
        for feed in self._feeds:
            metrics.FOLLOWER_LAG_SECONDS.labels(feed.name).set_function(partial(self._lag_s, feed))

    def lag_s(self) -> float:
        """Return how long the oldest entry has waited for any consumer."""
        return max(self._lag_s(feed) for feed in self._feeds)

    def _lag_s(self, feed: ConsumerFeed) -> float:
        now_ms = self._clock_ms()
        return max(now_ms - min(self._backlog.oldest_ms(now_ms), feed.oldest_ms(now_ms)), 0) / 1000

    # For partitions -------------------------------------------------------------------------------------------------

    def note(self, entries: Sequence[LogEntry]) -> None:
        """Take entries that are in the log."""
        self._backlog.note(entries, self._clock_ms())

    async def touch(self, entries: Sequence[LogEntry]) -> None:
        """Note durably which rooms get an entry other than a message, before the commit. Raises Unavailable.

        Writes at most once in 30 s for each room. Rooms with messages are marked as active in their records anyway.
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
        async with asyncio.TaskGroup() as tasks:
            for feed in self._feeds:
                tasks.create_task(feed.run())
            while True:
                await until_next(INTERVAL_S)
                try:
                    await self._turn(owned())
                    await self._save_if_due()
                except Unavailable as error:
                    log.warning("follower_postponed", reason=str(error), lag_s=round(self.lag_s(), 1))

    async def step(self, owned: Mapping[int, int]) -> None:
        """Do one turn of `run` and of all consumers in sequence. Raises Unavailable."""
        await self._turn(owned)
        for feed in self._feeds:
            await feed.step()
        await self._save_if_due()

    async def _turn(self, owned: Mapping[int, int]) -> None:
        """Follow the partitions of these terms: recover new ones, and offer what was noted. Raises Unavailable."""
        now_ms = self._clock_ms()
        self._follow(owned, now_ms)
        self._offer_noted()  # recovery takes its time, and may fail
        due = [one for one, at_ms in self._unrecovered.items() if at_ms <= now_ms]
        if due:
            await self._recover(due)
            self._offer_noted()

    def _offer_noted(self) -> None:
        for span in self._backlog.take(self._is_followed):
            for feed in self._feeds:
                feed.offer(span)
        for feed in self._feeds:
            feed.wake()

    async def _save_if_due(self) -> None:
        now_ms = self._clock_ms()
        if now_ms - self._saved_at_ms >= SAVE_MS:
            self._saved_at_ms = now_ms
            await self._save(now_ms)

    def _follow(self, owned: Mapping[int, int], now_ms: int) -> None:
        lost = {one for one, term in self._terms.items() if owned.get(one) != term}
        claimed = [one for one, term in owned.items() if self._terms.get(one) != term]
        if lost:
            self._drop(lambda room_id: partition_of(room_id) in lost)
        self._following -= lost
        for partition in lost:
            self._unrecovered.pop(partition, None)
        self._unrecovered |= dict.fromkeys(claimed, now_ms)
        self._terms = dict(owned)
        self._touched_at_ms = {
            room: at_ms for room, at_ms in self._touched_at_ms.items() if at_ms > now_ms - TOUCHED_FOR_MS
        }

    def _drop(self, is_lost: Callable[[str], bool]) -> None:
        self._backlog.drop(is_lost)
        for feed in self._feeds:
            feed.drop(is_lost)

    def _is_followed(self, room_id: str) -> bool:
        return partition_of(room_id) in self._following

    async def finish(self) -> None:
        """Hand over what waits, and save: the process stops. The next owner recovers whatever fails here."""
        self._offer_noted()
        await asyncio.gather(*(feed.finish(FINISH_S) for feed in self._feeds))
        try:
            async with asyncio.timeout(FINISH_S):
                await self._save(self._clock_ms())
        except (Unavailable, TimeoutError) as error:
            log.warning("follower_not_finished", reason=str(error) or "no answer in time")

    # Saving ---------------------------------------------------------------------------------------------------------

    async def _save(self, now_ms: int) -> None:
        """Save positions, then checkpoints, both as of now.

        A room either still waits and holds the checkpoint back, or its position is saved here.
        """
        waiting = [self._backlog.oldest_ms(now_ms), *(feed.checkpoint_ms(now_ms) for feed in self._feeds)]
        unsaved = [feed.take_unsaved() for feed in self._feeds]
        positions: dict[str, dict[str, int]] = {}
        for feed, revs in zip(self._feeds, unsaved, strict=True):
            for room_id, rev in revs.items():
                positions.setdefault(room_id, {})[feed.name] = rev
        try:
            await self._positions.save(positions, now_ms)
            await self._positions.save_checkpoints(list(self._following), min(waiting))
        except BaseException:
            for feed, revs in zip(self._feeds, unsaved, strict=True):
                feed.give_back_unsaved(revs)
            raise

    # Recovery -------------------------------------------------------------------------------------------------------

    async def _recover(self, partitions: Sequence[int]) -> None:
        """Offer each consumer the entries beyond its saved positions, in the recently active rooms of these partitions.

        Raises Unavailable.
        """
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
            positions = await self._positions.positions(some, [feed.name for feed in self._feeds])
            resumed = (self._resume(room_id, positions.get(room_id, {}), since_ms) for room_id in some)
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

    async def _resume(self, room_id: str, positions: Mapping[str, int], checkpoint_ms: int) -> bool:
        """Offer the entries of a room beyond its positions; a consumer without one starts near the end of the log.

        Entries that this process has already offered are not offered again.
        """
        if len(positions) < len(self._feeds):
            record = (await self._rooms.rooms([room_id])).get(room_id)
            unknown = max(record.rev - UNKNOWN_START_REVS, 0) if record is not None else 0
            positions = {feed.name: positions.get(feed.name, unknown) for feed in self._feeds}
        through = max(positions.values())
        while some := await self._log.revs(room_id, through, through + DOCUMENTS_MAX):
            through = some[-1]
            if len(some) < DOCUMENTS_MAX:
                break
        offered = self._backlog.skip(room_id, through)
        is_behind = False
        for feed in self._feeds:
            after = positions[feed.name] if offered is None else offered
            if after < through:
                feed.offer(EntrySpan(room_id, after, through, self._clock_ms(), None), checkpoint_ms)
                is_behind = True
        return is_behind
