"""The log follower through deaths and failures between any two steps, on a log and positions in memory."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from chat_service.follower.backlog import ENTRIES_MAX
from chat_service.follower.consumer import RoomBatch
from chat_service.follower.consumer_feed import FAILURES_MAX, RETRY_MS
from chat_service.follower.log_follower import LOOK_AGAIN_MS, SAVE_MS, LogFollower
from chat_service.rooms.changes import Erasure
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.room import Room
from chat_service.storage.documents import NewerDocument
from shared.bus.topology import PARTITIONS
from shared.errors import Unavailable
from tests.bench.plans import NOW_MS, a_message, a_room, an_entry
from tests.support.waiting import until

ROOMS = ("room_1", "room_2")


class DeadError(BaseException):
    """The process was killed at this step."""


@dataclass
class Disk:
    """Everything that survives a process, and the fault that strikes at a later step."""

    log: dict[str, list[LogEntry]] = field(default_factory=lambda: {room: [] for room in ROOMS})
    active_ms: dict[str, int] = field(default_factory=dict)
    touched_ms: dict[str, int] = field(default_factory=dict)
    saved_revs: dict[str, dict[str, int]] = field(default_factory=dict)
    checkpoint_ms: dict[int, int] = field(default_factory=dict)
    now_ms: int = NOW_MS
    unreadable: set[str] = field(default_factory=set)
    fault_in: int | None = None
    fault: type[BaseException] = DeadError

    def step(self) -> None:
        if self.fault_in is not None:
            self.fault_in -= 1
            if self.fault_in < 0:
                self.fault_in = None
                raise self.fault("here")

    # EntryReader and ActiveRooms

    async def between(self, room_id: str, after: int, through: int) -> list[LogEntry]:
        self.step()
        if room_id in self.unreadable:
            raise NewerDocument("entry", 1, room_id)
        return [entry for entry in self.log[room_id] if after < entry.rev <= through]

    async def revs(self, room_id: str, after: int, through: int) -> list[int]:
        self.step()
        return [entry.rev for entry in self.log[room_id] if after < entry.rev <= through]

    async def rooms_active_since(self, at_ms: int) -> list[Room]:
        self.step()
        return [a_room(room, rev=0) for room, active_ms in self.active_ms.items() if active_ms >= at_ms]

    async def rooms(self, room_ids: Collection[str]) -> dict[str, Room]:
        self.step()
        return {room: a_room(room, rev=0) for room in room_ids}

    # Positions

    async def save(self, positions: Mapping[str, Mapping[str, int]], at_ms: int) -> None:
        for room, revs in positions.items():
            self.step()
            saved = self.saved_revs.setdefault(room, {})
            saved |= {name: max(rev, saved.get(name, 0)) for name, rev in revs.items()}

    async def touch(self, room_ids: Collection[str], at_ms: int) -> None:
        self.step()
        self.touched_ms.update(dict.fromkeys(room_ids, at_ms))

    async def touched_since(self, at_ms: int) -> list[str]:
        self.step()
        return [room for room, touched_ms in self.touched_ms.items() if touched_ms >= at_ms]

    async def positions(self, room_ids: Collection[str], consumers: Collection[str]) -> dict[str, dict[str, int]]:
        self.step()
        return {room: dict(self.saved_revs[room]) for room in room_ids if room in self.saved_revs}

    async def checkpoints(self, partitions: Collection[int]) -> dict[int, int]:
        self.step()
        return {one: self.checkpoint_ms[one] for one in partitions if one in self.checkpoint_ms}

    async def save_checkpoints(self, partitions: Collection[int], at_ms: int) -> None:
        self.step()
        self.checkpoint_ms.update(dict.fromkeys(partitions, at_ms))


@dataclass
class Recorder:
    """A consumer that remembers what it was given, also after the death of its process."""

    disk: Disk
    name: str = "all"
    kinds: tuple[EntryKind, ...] = tuple(EntryKind)
    fails: Callable[[LogEntry], BaseException | None] = lambda _: None
    seen: dict[str, list[int]] = field(default_factory=lambda: {room: [] for room in ROOMS})

    def wanted(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        return [entry for entry in entries if entry.kind in self.kinds]

    async def take(self, batches: Sequence[RoomBatch]) -> None:
        for batch in batches:
            for entry in batch.entries:
                self.disk.step()
                if (error := self.fails(entry)) is not None:
                    raise error
                self.seen[batch.room_id].append(entry.rev)

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        pass

    async def finish(self) -> None:
        pass


@dataclass
class WaitingRecorder(Recorder):
    """A consumer whose service does not answer until it is allowed to."""

    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, batches: Sequence[RoomBatch]) -> None:
        await self.answers.wait()
        await super().take(batches)


@dataclass
class Owner:
    """A process that owns all partitions under one term."""

    disk: Disk
    term: int
    consumers: Sequence[Recorder]

    def __post_init__(self) -> None:
        disk = self.disk
        self.follower = LogFollower(disk, disk, disk, self.consumers, lambda: disk.now_ms)

    def next(self) -> "Owner":
        """Return the owner after this one."""
        return Owner(self.disk, self.term + 1, self.consumers)

    async def commit(self, room: str, count: int, *, is_message: bool) -> None:
        first = len(self.disk.log[room]) + 1
        made = [
            a_message(room, rev - 1) if is_message else an_entry(room, rev, EntryKind.UPDATED)
            for rev in range(first, first + count)
        ]
        await self.append(room, made, is_message=is_message)

    async def append(self, room: str, made: list[LogEntry], *, is_message: bool = False) -> None:
        """Append entries as a partition does; a death may strike before they are noted."""
        await self.follower.touch(made)
        if is_message:
            self.disk.active_ms[room] = self.disk.now_ms
        self.disk.log[room] += made
        self.disk.step()
        self.follower.note(made)

    async def follow(self) -> None:
        with suppress(Unavailable):
            await self.follower.step(dict.fromkeys(range(PARTITIONS), self.term))


def is_in_order_without_gap(seen: list[int], wanted: list[int]) -> bool:
    """Return whether every wanted entry was seen, and none before the one before it."""
    known = 0
    for rev in seen:
        place = wanted.index(rev)
        if place > known:
            return False
        known = max(known, place + 1)
    return known == len(wanted)


acts = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(ROOMS), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("follow")),
    st.tuples(st.just("wait"), st.sampled_from((SAVE_MS, LOOK_AGAIN_MS, 3_600_000))),
    st.tuples(st.just("outage"), st.booleans()),
    st.tuples(st.just("fault"), st.integers(0, 12), st.sampled_from((DeadError, Unavailable))),
)


@given(st.lists(acts, max_size=40))
def test_consumers_get_every_entry_in_order_whatever_dies(run: list[tuple[object, ...]]) -> None:
    asyncio.run(_consumers_get_every_entry(run))


async def _consumers_get_every_entry(run: list[tuple[object, ...]]) -> None:
    disk = Disk()
    some = Recorder(disk, "some", (EntryKind.UPDATED,))
    consumers = [Recorder(disk), some]
    owner = Owner(disk, 1, consumers)
    await owner.follow()  # the first checkpoint of a database
    for act in run:
        try:
            match act:
                case ("commit", str(room), int(count), bool(is_message)):
                    await owner.commit(room, count, is_message=is_message)
                case ("wait", int(ms)):
                    disk.now_ms += ms
                case ("fault", int(steps), type() as fault):
                    disk.fault_in, disk.fault = steps, fault
                case ("outage", bool(is_over)):
                    some.fails = (lambda _: None) if is_over else (lambda _: Unavailable("the second consumer"))
                case _:
                    await owner.follow()
        except (DeadError, Unavailable):  # an owner that cannot note what it committed ends as well
            owner = owner.next()
    disk.fault_in = None
    some.fails = lambda _: None
    await owner.follow()  # nothing else happens in the rooms: the last owner finds what waits by itself
    await owner.follow()
    for room, entries in disk.log.items():
        for consumer in consumers:
            wanted = [entry.rev for entry in entries if entry.kind in consumer.kinds]
            assert is_in_order_without_gap(consumer.seen[room], wanted), (consumer.name, room, consumer.seen[room])


async def test_lost_partition_is_left_to_its_new_owner() -> None:
    disk = Disk()
    recorder = Recorder(disk)
    first = Owner(disk, 1, [recorder])
    await first.follow()
    await first.commit(ROOMS[0], 3, is_message=True)
    await first.next().follow()
    await first.follower.step({})
    assert recorder.seen[ROOMS[0]] == [1, 2, 3]


async def test_late_commit_of_a_replaced_owner_is_found_a_minute_later() -> None:
    disk = Disk()
    recorder = Recorder(disk)
    first = Owner(disk, 1, [recorder])
    second = first.next()
    await second.follow()
    await first.commit(ROOMS[0], 2, is_message=False)
    await second.follow()
    assert recorder.seen[ROOMS[0]] == []
    disk.now_ms += LOOK_AGAIN_MS
    await second.follow()
    await second.follow()
    assert recorder.seen[ROOMS[0]] == [1, 2]


# Consumers that fail --------------------------------------------------------------------------------------------------


async def following(*consumers: Recorder) -> Owner:
    """Return an owner that follows all partitions."""
    owner = Owner(consumers[0].disk, 1, consumers)
    await owner.follow()
    return owner


def _has_seen(recorder: Recorder, revs: list[int]) -> bool:
    return recorder.seen[ROOMS[0]] == revs


def _raising(error: BaseException, _: LogEntry) -> BaseException | None:
    return error


def a_bug(entry: LogEntry) -> BaseException | None:
    return ValueError("a bug") if entry.room_id == ROOMS[0] and entry.rev == 2 else None


async def test_failing_entry_is_skipped_alone_after_three_attempts() -> None:
    disk = Disk()
    recorder = Recorder(disk, fails=a_bug)
    owner = await following(recorder)
    for room in ROOMS:
        await owner.commit(room, 3, is_message=True)
    await owner.follow()
    assert recorder.seen[ROOMS[1]][-3:] == [1, 2, 3]
    for _ in range(FAILURES_MAX - 1):
        assert 3 not in recorder.seen[ROOMS[0]]
        disk.now_ms += RETRY_MS
        await owner.follow()
    assert recorder.seen[ROOMS[0]][-2:] == [1, 3]
    assert owner.follower.lag_s() == 0.0


async def test_failing_erasure_is_never_skipped() -> None:
    disk = Disk()
    recorder = Recorder(disk, fails=a_bug)
    owner = await following(recorder)
    erasure = an_entry(ROOMS[0], 2, EntryKind.ERASED, change=Erasure(message_id="m", seq=1))
    await owner.append(ROOMS[0], [a_message(ROOMS[0], 0), erasure, a_message(ROOMS[0], 2)])
    for _ in range(3 * FAILURES_MAX):
        disk.now_ms += RETRY_MS
        await owner.follow()
    assert set(recorder.seen[ROOMS[0]]) == {1}
    assert owner.follower.lag_s() > 0.0
    recorder.fails = lambda _: None
    disk.now_ms += RETRY_MS
    await owner.follow()
    assert recorder.seen[ROOMS[0]][-2:] == [2, 3]
    assert owner.follower.lag_s() == 0.0


async def test_entry_of_a_newer_release_holds_up_its_room_alone() -> None:
    disk = Disk()
    recorder = Recorder(disk)
    killed = await following(recorder)
    disk.unreadable = {ROOMS[0]}
    for room in ROOMS:
        await killed.commit(room, 2, is_message=True)
    heir = killed.next()
    await heir.follow()
    assert [recorder.seen[room] for room in ROOMS[:2]] == [[], [1, 2]]
    assert heir.follower.lag_s() >= 0.0
    disk.unreadable.clear()
    disk.now_ms += RETRY_MS
    await heir.follow()
    assert recorder.seen[ROOMS[0]] == [1, 2]


async def test_only_failures_in_a_row_count() -> None:
    disk = Disk()
    recorder = Recorder(disk)
    owner = await following(recorder)
    await owner.commit(ROOMS[0], 2, is_message=True)
    for _ in range(FAILURES_MAX):
        for error in (ValueError("a bug"), Unavailable("for a while")):
            recorder.fails = partial(_raising, error)
            disk.now_ms += RETRY_MS
            await owner.follow()
    recorder.fails = lambda _: None
    disk.now_ms += RETRY_MS
    await owner.follow()
    assert recorder.seen[ROOMS[0]] == [1, 2]


async def test_consumer_that_waits_for_its_service_does_not_hold_up_others() -> None:
    disk = Disk()
    prompt, stuck = Recorder(disk, "prompt"), WaitingRecorder(disk, "stuck")
    follower = LogFollower(disk, disk, disk, [stuck, prompt], lambda: disk.now_ms)
    owner = await following(prompt)
    owner.follower = follower
    running = asyncio.create_task(follower.run(lambda: dict.fromkeys(range(PARTITIONS), 1)))
    try:
        for seen in ([1], [1, 2]):
            await owner.commit(ROOMS[0], 1, is_message=True)
            await until(partial(_has_seen, prompt, seen))
        assert stuck.seen[ROOMS[0]] == []
        stuck.answers.set()
        await until(partial(_has_seen, stuck, [1, 2]))
    finally:
        running.cancel()


async def test_consumer_far_behind_costs_no_memory_and_reads_the_log() -> None:
    disk = Disk()
    behind = Recorder(disk, "behind", fails=lambda _: Unavailable("its service"))
    owner = await following(behind)
    await owner.commit(ROOMS[0], ENTRIES_MAX, is_message=True)
    await owner.follow()
    await owner.commit(ROOMS[0], 1, is_message=True)
    await owner.follow()
    assert [len(feed._queue) for feed in owner.follower._feeds] == [0]
    behind.fails = lambda _: None
    await owner.follow()
    assert behind.seen[ROOMS[0]] == list(range(1, ENTRIES_MAX + 2))


async def test_stopping_process_saves_what_the_other_consumers_have() -> None:
    disk = Disk()
    prompt, failing = Recorder(disk, "prompt"), Recorder(disk, "failing", fails=lambda _: Unavailable("its service"))
    owner = await following(prompt, failing)
    await owner.commit(ROOMS[0], 2, is_message=True)
    await owner.follower.finish()
    assert disk.saved_revs == {ROOMS[0]: {"prompt": 2}}
    failing.fails = lambda _: None
    await owner.next().follow()
    assert (prompt.seen[ROOMS[0]], failing.seen[ROOMS[0]]) == ([1, 2], [1, 2])


async def test_lag_is_the_age_of_the_oldest_waiting_entry() -> None:
    disk = Disk()
    owner = Owner(disk, 1, [Recorder(disk)])
    await owner.commit(ROOMS[0], 1, is_message=True)
    disk.now_ms += 1_500
    assert owner.follower.lag_s() == 1.5
    await owner.follow()
    assert owner.follower.lag_s() == 0.0
