"""The log follower through deaths and failures between any two steps, on a log and positions in memory."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from chat_service.follower.consumer import RoomBatch
from chat_service.follower.log_follower import LOOK_AGAIN_MS, SAVE_MS, LogFollower
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.room import Room
from shared.bus.topology import PARTITIONS
from shared.errors import Unavailable
from tests.bench.plans import NOW_MS, a_message, a_room, an_entry

ROOMS = ("room_1", "room_2")


class DeadError(BaseException):
    """The process was killed at this step."""


@dataclass
class Disk:
    """Everything that survives a process, and the fault that strikes at a later step."""

    log: dict[str, list[LogEntry]] = field(default_factory=lambda: {room: [] for room in ROOMS})
    active_ms: dict[str, int] = field(default_factory=dict)
    touched_ms: dict[str, int] = field(default_factory=dict)
    revs: dict[str, int] = field(default_factory=dict)
    checkpoint_ms: dict[int, int] = field(default_factory=dict)
    seen: dict[str, list[int]] = field(default_factory=lambda: {room: [] for room in ROOMS})
    now_ms: int = NOW_MS
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
        return [entry for entry in self.log[room_id] if after < entry.rev <= through]

    async def rooms_active_since(self, at_ms: int) -> list[Room]:
        self.step()
        return [a_room(room, rev=0) for room, active_ms in self.active_ms.items() if active_ms >= at_ms]

    async def rooms(self, room_ids: Collection[str]) -> dict[str, Room]:
        self.step()
        return {room: a_room(room, rev=0) for room in room_ids}

    # Positions

    async def save(self, positions: Mapping[str, int], at_ms: int) -> None:
        for room, rev in positions.items():
            self.step()
            self.revs[room] = max(rev, self.revs.get(room, 0))

    async def touch(self, room_ids: Collection[str], at_ms: int) -> None:
        self.step()
        self.touched_ms.update(dict.fromkeys(room_ids, at_ms))

    async def touched_since(self, at_ms: int) -> list[str]:
        self.step()
        return [room for room, touched_ms in self.touched_ms.items() if touched_ms >= at_ms]

    async def positions(self, room_ids: Collection[str]) -> dict[str, int]:
        self.step()
        return {room: self.revs[room] for room in room_ids if room in self.revs}

    async def checkpoints(self, partitions: Collection[int]) -> dict[int, int]:
        self.step()
        return {one: self.checkpoint_ms[one] for one in partitions if one in self.checkpoint_ms}

    async def save_checkpoints(self, partitions: Collection[int], at_ms: int) -> None:
        self.step()
        self.checkpoint_ms.update(dict.fromkeys(partitions, at_ms))

    # EntryConsumer

    async def take(self, batches: Sequence[RoomBatch]) -> None:
        for batch in batches:
            for entry in batch.entries:
                self.step()
                self.seen[batch.room_id].append(entry.rev)

    async def finish(self) -> None:
        pass


@dataclass
class Owner:
    """A process that owns all partitions under one term."""

    disk: Disk
    term: int

    def __post_init__(self) -> None:
        disk = self.disk
        self.follower = LogFollower(disk, disk, disk, [disk], lambda: disk.now_ms)

    async def commit(self, room: str, count: int, *, is_message: bool) -> None:
        """Append entries as a partition does; a death may strike before they are noted."""
        first = len(self.disk.log[room]) + 1
        made = [
            a_message(room, rev - 1) if is_message else an_entry(room, rev, EntryKind.UPDATED)
            for rev in range(first, first + count)
        ]
        await self.follower.touch(made)
        if is_message:
            self.disk.active_ms[room] = self.disk.now_ms
        self.disk.log[room] += made
        self.disk.step()
        self.follower.note(made)

    async def follow(self) -> None:
        with suppress(Unavailable):
            await self.follower.step(dict.fromkeys(range(PARTITIONS), self.term))


def is_in_order_without_gap(seen: list[int], newest: int) -> bool:
    """Return whether every entry was seen, and none before the one before it."""
    known = 0
    for rev in seen:
        if rev > known + 1:
            return False
        known = max(known, rev)
    return known == newest


acts = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(ROOMS), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("follow")),
    st.tuples(st.just("wait"), st.sampled_from((SAVE_MS, LOOK_AGAIN_MS, 3_600_000))),
    st.tuples(st.just("fault"), st.integers(0, 12), st.sampled_from((DeadError, Unavailable))),
)


@given(st.lists(acts, max_size=40))
def test_consumers_get_every_entry_in_order_whatever_dies(run: list[tuple[object, ...]]) -> None:
    asyncio.run(_consumers_get_every_entry(run))


async def _consumers_get_every_entry(run: list[tuple[object, ...]]) -> None:
    disk = Disk()
    owner = Owner(disk, 1)
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
                case _:
                    await owner.follow()
        except (DeadError, Unavailable):  # an owner that cannot note its committed entries ends as well
            owner = Owner(disk, owner.term + 1)
    disk.fault_in = None
    await owner.follow()  # nothing else happens in the rooms: the last owner finds what waits by itself
    await owner.follow()
    for room, entries in disk.log.items():
        assert is_in_order_without_gap(disk.seen[room], len(entries)), (room, disk.seen[room])


async def test_lost_partition_is_left_to_its_new_owner() -> None:
    disk = Disk()
    first, second = Owner(disk, 1), Owner(disk, 2)
    await first.follow()
    await first.commit(ROOMS[0], 3, is_message=True)
    await second.follow()
    await first.follower.step({})
    assert disk.seen[ROOMS[0]] == [1, 2, 3]


async def test_late_commit_of_a_replaced_owner_is_found_a_minute_later() -> None:
    disk = Disk()
    first, second = Owner(disk, 1), Owner(disk, 2)
    await second.follow()
    await first.commit(ROOMS[0], 2, is_message=False)
    await second.follow()
    assert disk.seen[ROOMS[0]] == []
    disk.now_ms += LOOK_AGAIN_MS
    await second.follow()
    await second.follow()
    assert disk.seen[ROOMS[0]] == [1, 2]


async def test_failing_entry_is_skipped_after_three_attempts() -> None:
    disk = Disk()

    class Failing(Disk):
        async def take(self, batches: Sequence[RoomBatch]) -> None:
            if any(batch.room_id == ROOMS[0] for batch in batches):
                raise ValueError("a bug")
            await disk.take(batches)

    follower = LogFollower(disk, disk, disk, [Failing()], lambda: disk.now_ms)
    owner = Owner(disk, 1)
    owner.follower = follower
    await owner.follow()
    for room in ROOMS:
        await owner.commit(room, 1, is_message=True)
    for _ in range(3):
        await owner.follow()
    assert disk.seen == {ROOMS[0]: [], ROOMS[1]: [1]}
    assert follower.lag_s() == 0.0


async def test_lag_is_the_age_of_the_oldest_waiting_entry() -> None:
    disk = Disk()
    owner = Owner(disk, 1)
    await owner.commit(ROOMS[0], 1, is_message=True)
    disk.now_ms += 1_500
    assert owner.follower.lag_s() == 1.5
    await owner.follow()
    assert owner.follower.lag_s() == 0.0
