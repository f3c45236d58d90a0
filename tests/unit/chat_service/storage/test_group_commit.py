"""Group commit: one insert for many partitions, each of which gets the outcome for its entries."""

import asyncio
from collections.abc import Iterator, Sequence
from enum import Enum, auto

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.message import Message
from chat_service.storage import group_commit
from chat_service.storage.group_commit import ENTRIES_MAX, TEXT_MAX_BYTES, GroupCommit
from chat_service.storage.log_store import LogConflict
from shared.errors import Unavailable
from shared.protocol.server_frames import UserProfile


class InsertFault(Enum):
    """The fate of an insert whose answer is lost."""

    NONE = auto()
    NOT_STORED = auto()
    HALF_STORED = auto()
    STORED = auto()


class RoomLogStub:
    """An ordered insert into logs with unique ids and unique revs, like the database's.

    `faults` are the fates of the next inserts. With `is_gated` each insert waits for a release of `gate`.
    """

    def __init__(self, *stored: LogEntry, faults: Sequence[InsertFault] = (), is_gated: bool = False) -> None:
        self.entries: list[LogEntry] = list(stored)
        self.inserts: list[list[str]] = []
        self.faults = list(faults)
        self.error: Exception | None = None
        self.gate = asyncio.Semaphore(0)
        self._is_gated = is_gated

    async def insert(self, entries: Sequence[LogEntry]) -> None:
        self.inserts.append([entry.id for entry in entries])
        if self._is_gated:
            await self.gate.acquire()
        if self.error is not None:
            raise self.error
        match self.faults.pop(0) if self.faults else InsertFault.NONE:
            case InsertFault.NONE:
                self.land(entries)
                return
            case InsertFault.HALF_STORED:
                self._land_quietly(entries[: len(entries) // 2])
            case InsertFault.STORED:
                self._land_quietly(entries)
        raise Unavailable("the answer was lost")

    def land(self, entries: Sequence[LogEntry]) -> None:
        for index, entry in enumerate(entries):
            if any(entry.id == one.id or _place(entry) == _place(one) for one in self.entries):
                raise LogConflict("another entry is stored there", index)
            self.entries.append(entry)

    def _land_quietly(self, entries: Sequence[LogEntry]) -> None:
        try:
            self.land(entries)
        except LogConflict:
            return

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self.entries]

    def revs(self, room_id: str) -> list[int]:
        return [entry.rev for entry in self.entries if entry.room_id == room_id]


def _place(entry: LogEntry) -> tuple[str, int]:
    return entry.room_id, entry.rev


def entry(id_: str, rev: int = 1, room_id: str = "", text: str = "") -> LogEntry:
    """Return a message; its room is named after its id by default."""
    room_id = room_id or f"room_of_{id_}"
    message = Message(
        id=id_,
        room_id=room_id,
        seq=rev,
        rev=rev,
        user_id="ann",
        user=UserProfile(),
        text=text,
        client_message_id=None,
        created_at_ms=1,
    )
    return LogEntry(
        id=id_,
        room_id=room_id,
        rev=rev,
        kind=EntryKind.MESSAGE,
        term=1,
        author_id="ann",
        at_ms=1,
        last_seq=rev,
        member_count=1,
        message=message,
    )


def entries(*ids: str) -> list[LogEntry]:
    return [entry(id_) for id_ in ids]


def none_expired() -> bool:
    return False


def all_expired() -> bool:
    return True


async def begun(room_log: RoomLogStub, inserts: int) -> None:
    """Return once `inserts` inserts have begun."""
    for _ in range(1_000):
        if len(room_log.inserts) >= inserts:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"only {room_log.inserts} have begun")


@pytest.fixture(autouse=True, scope="module")
def _resolves_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_commit, "RESOLVE_BACKOFF_FIRST_S", 0.0)
        yield


async def outcomes(room_log: RoomLogStub, *groups: list[LogEntry]) -> list[BaseException | None]:
    """Commit the first group, and the others while its insert is under way; return the outcome of each."""
    commits = GroupCommit(room_log)
    tasks = [asyncio.ensure_future(commits.commit(group, none_expired)) for group in groups]
    await asyncio.sleep(0)  # the first insert is under way, the others wait
    for _ in range(10 * len(groups) + 10):
        room_log.gate.release()
    return await asyncio.gather(*tasks, return_exceptions=True)


# Grouping -------------------------------------------------------------------------------------------------------------


async def test_entries_that_arrive_during_insert_share_the_next() -> None:
    room_log = RoomLogStub(is_gated=True)
    assert await outcomes(room_log, entries("a"), entries("b", "c"), entries("d")) == [None, None, None]
    assert room_log.inserts == [["a"], ["b", "c", "d"]]


async def test_commit_of_nothing_inserts_nothing() -> None:
    room_log = RoomLogStub()
    await GroupCommit(room_log).commit([], none_expired)
    assert room_log.inserts == []


async def test_insert_holds_at_most_500_entries() -> None:
    room_log = RoomLogStub(is_gated=True)
    groups = [entries(*(f"{number}-{index}" for index in range(200))) for number in range(6)]
    assert await outcomes(room_log, *groups) == [None] * 6
    assert [len(insert) for insert in room_log.inserts] == [200, 400, 400, 200]
    assert max(map(len, room_log.inserts)) <= ENTRIES_MAX


async def test_insert_holds_at_most_8_mb_of_text() -> None:
    room_log = RoomLogStub(is_gated=True)
    half = "x" * (TEXT_MAX_BYTES // 2)
    groups = [[entry(id_, text=half)] for id_ in "abcd"]
    assert await outcomes(room_log, *groups) == [None] * 4
    assert room_log.inserts == [["a"], ["b", "c"], ["d"]]


async def test_group_beyond_the_bound_is_inserted_alone() -> None:
    room_log = RoomLogStub(is_gated=True)
    large = entries(*(str(index) for index in range(ENTRIES_MAX + 1)))
    assert await outcomes(room_log, entries("a"), large, entries("b")) == [None] * 3
    assert list(map(len, room_log.inserts)) == [1, ENTRIES_MAX + 1, 1]


async def test_cancelled_commit_leaves_waiting_groups_committed() -> None:
    room_log = RoomLogStub(is_gated=True)
    commits = GroupCommit(room_log)
    first = asyncio.ensure_future(commits.commit(entries("a"), none_expired))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(commits.commit(entries("b"), none_expired))
    await asyncio.sleep(0)
    first.cancel()
    room_log.gate.release()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert room_log.ids == ["b"]


async def test_cancelled_commit_does_not_cancel_those_in_its_insert() -> None:
    room_log = RoomLogStub(is_gated=True)
    commits = GroupCommit(room_log)
    tasks = [asyncio.ensure_future(commits.commit(entries(id_), none_expired)) for id_ in "abc"]
    await asyncio.sleep(0)
    room_log.gate.release()
    await tasks[0]
    await begun(room_log, 2)
    tasks[1].cancel()
    for _ in range(5):
        room_log.gate.release()
    _, cancelled, other = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(other, LogConflict)  # its outcome was unknown, and is resolved
    assert "c" in room_log.ids


# Refusals -------------------------------------------------------------------------------------------------------------


async def test_conflict_fails_only_its_group() -> None:
    room_log = RoomLogStub(*entries("x"), is_gated=True)
    first, second, third = await outcomes(room_log, entries("a"), entries("b", "x", "c"), entries("d"))
    assert (first, third) == (None, None)
    assert isinstance(second, LogConflict)
    assert second.stored == 1
    assert room_log.ids == ["x", "a", "b", "d"]
    assert room_log.inserts == [["a"], ["b", "x", "c", "d"], ["d"]]


async def test_conflict_counts_from_the_begin_of_its_own_group() -> None:
    room_log = RoomLogStub(*entries("x"), is_gated=True)
    told = await outcomes(room_log, entries("a"), entries("b", "c", "d"), entries("e", "x"))
    assert told[:2] == [None, None]
    assert isinstance(told[2], LogConflict)
    assert told[2].stored == 1


async def test_conflict_at_first_entry_stores_nothing_of_its_group() -> None:
    room_log = RoomLogStub(entry("x", rev=5, room_id="r"))
    with pytest.raises(LogConflict) as refused:
        await GroupCommit(room_log).commit([entry("a", 5, "r"), entry("b", 6, "r")], none_expired)
    assert refused.value.stored == 0
    assert room_log.ids == ["x"]


async def test_two_conflicts_of_one_insert_fail_two_groups() -> None:
    room_log = RoomLogStub(*entries("x", "y"), is_gated=True)
    told = await outcomes(room_log, entries("a"), entries("x"), entries("y"), entries("b"))
    assert [type(outcome) for outcome in told] == [type(None), LogConflict, LogConflict, type(None)]
    assert room_log.ids == ["x", "y", "a", "b"]


async def test_other_error_fails_all_groups_of_the_insert_and_resolves_nothing() -> None:
    room_log = RoomLogStub(is_gated=True)
    room_log.error = ValueError("not a document")
    told = await outcomes(room_log, entries("a"), entries("b"), entries("c"))
    assert [type(outcome) for outcome in told] == [ValueError] * 3
    assert room_log.inserts == [["a"], ["b", "c"]]


# Settlement -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [InsertFault.NOT_STORED, InsertFault.HALF_STORED, InsertFault.STORED])
async def test_unknown_outcome_is_resolved_by_inserting_again(fault: InsertFault) -> None:
    room_log = RoomLogStub(faults=[fault])
    batch = [entry("a", 3, "r"), entry("b", 4, "r")]
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit(batch, none_expired)
    assert room_log.inserts == [["a", "b"], ["a", "b"]]
    assert room_log.ids == (["a"] if fault is InsertFault.HALF_STORED else ["a", "b"])
    with pytest.raises(LogConflict):
        room_log.land(batch)  # the first copy, late: nothing of it can be stored any more
    assert room_log.ids == (["a"] if fault is InsertFault.HALF_STORED else ["a", "b"])


async def test_resolution_ends_where_another_entry_is_stored() -> None:
    room_log = RoomLogStub(entry("x", 3, "r"), faults=[InsertFault.NOT_STORED])
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit([entry("a", 3, "r")], none_expired)
    assert room_log.ids == ["x"]


async def test_resolution_repeats_until_its_outcome_is_known() -> None:
    room_log = RoomLogStub(faults=[InsertFault.NOT_STORED] * 4)
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit([entry("a", 3, "r")], none_expired)
    assert room_log.inserts == [["a"]] * 5
    assert room_log.ids == ["a"]


async def test_expired_commands_leave_a_void_at_their_first_rev() -> None:
    room_log = RoomLogStub(faults=[InsertFault.NOT_STORED])
    batch = [entry("a", 3, "r"), entry("b", 4, "r")]
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit(batch, all_expired)
    assert [(one.kind, one.rev, one.term) for one in room_log.entries] == [(EntryKind.VOID, 3, 1)]
    with pytest.raises(LogConflict):
        room_log.land(batch)  # the first copy, late
    assert room_log.revs("r") == [3]


async def test_void_is_refused_where_the_first_copy_landed() -> None:
    room_log = RoomLogStub(faults=[InsertFault.STORED])
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit([entry("a", 3, "r")], all_expired)
    assert room_log.ids == ["a"]


async def test_expiry_during_resolution_turns_to_a_void() -> None:
    room_log = RoomLogStub(faults=[InsertFault.NOT_STORED] * 3)
    verdicts = iter([False, False, True])
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit([entry("a", 3, "r")], lambda: next(verdicts))
    assert room_log.inserts == [["a"], ["a"], ["a"], ["void_r_3"]]


async def test_log_never_begins_with_a_void() -> None:
    room_log = RoomLogStub(faults=[InsertFault.NOT_STORED])
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit([entry("a", 1, "r")], all_expired)
    assert room_log.ids == ["a"]


async def test_each_room_is_resolved_by_itself() -> None:
    room_log = RoomLogStub(faults=[InsertFault.HALF_STORED])
    batch = [entry("a", 3, "r"), entry("b", 7, "s"), entry("c", 4, "r"), entry("d", 8, "s")]
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit(batch, all_expired)
    assert room_log.inserts[1:] == [["void_r_3"], ["void_s_7"]]
    assert room_log.ids == ["a", "b"]


async def test_commit_is_not_over_while_its_outcome_is_unknown() -> None:
    room_log = RoomLogStub(faults=[InsertFault.NOT_STORED, InsertFault.NOT_STORED], is_gated=True)
    task = asyncio.ensure_future(GroupCommit(room_log).commit(entries("a"), none_expired))
    for insert in (1, 2, 3):
        await begun(room_log, insert)
        assert not task.done()
        room_log.gate.release()
    with pytest.raises(LogConflict):
        await task


async def test_resolution_of_one_partition_delays_no_other() -> None:
    room_log = RoomLogStub(faults=[InsertFault.NOT_STORED], is_gated=True)
    commits = GroupCommit(room_log)
    unknown = asyncio.ensure_future(commits.commit([entry("a", 3, "r")], none_expired))
    await asyncio.sleep(0)
    room_log.gate.release()
    await begun(room_log, 2)  # resolving, and held
    other = asyncio.ensure_future(commits.commit(entries("b"), none_expired))
    await begun(room_log, 3)
    room_log.gate.release()
    room_log.gate.release()
    await other
    with pytest.raises(LogConflict):
        await unknown
    assert sorted(room_log.ids) == ["a", "b"]


# Any course -----------------------------------------------------------------------------------------------------------

batches = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=6)
fates = st.lists(st.sampled_from(InsertFault), max_size=10)


@given(batches, fates, st.booleans(), st.sets(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=4))
def test_logs_have_no_holes_and_outcomes_are_true(
    drawn: list[list[int]], faults: list[InsertFault], are_all_expired: bool, foreign: set[tuple[int, int]]
) -> None:
    """Each number of a batch is a room of its partition, which gets one more entry; `foreign` owners came first."""

    async def check() -> None:
        others = [entry(f"foreign_{number}_{room}", 2, f"room_{number}_{room}") for number, room in foreign]
        room_log = RoomLogStub(*others, faults=faults)
        groups = []
        for number, rooms in enumerate(drawn):
            places = enumerate(rooms)
            groups.append(
                [
                    entry(f"{number}_{place}", 2 + rooms[:place].count(room), f"room_{number}_{room}")
                    for place, room in places
                ]
            )
        commits = GroupCommit(room_log)
        commands = (commits.commit(group, lambda: are_all_expired) for group in groups)
        told = await asyncio.gather(*commands, return_exceptions=True)
        tried = [list(group) for group in groups]
        for group, outcome in zip(groups, told, strict=True):
            assert outcome is None or isinstance(outcome, LogConflict)
            stored = group if outcome is None else group[: outcome.stored]
            assert {one.id for one in stored} <= set(room_log.ids)
        known = list(room_log.ids)
        for late in tried:  # writes still in progress change nothing
            for room_id in {one.room_id for one in late}:
                of_room = [one for one in late if one.room_id == room_id]
                if of_room[0].rev in room_log.revs(room_id):
                    with pytest.raises(LogConflict):
                        room_log.land(of_room)
        assert room_log.ids == known
        for room_id in {one.room_id for one in room_log.entries}:
            revs = room_log.revs(room_id)
            assert revs == list(range(2, 2 + len(revs)))

    asyncio.run(check())
