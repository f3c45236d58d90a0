"""Commits interrupted at a chosen point, on the real database: two owners, unknown outcomes, lost majorities.

One owner reaches the database through a proxy, which holds or falsifies the insert; the other reaches it directly.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from chat_service.follower.position_store import PositionStore
from chat_service.partitions import partition
from chat_service.rooms.changes import Erasure
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.storage import group_commit, log_store, repair
from chat_service.storage.group_commit import GroupCommit
from chat_service.storage.log_store import LogConflict, LogStore
from shared.bus.delivery import Delivery, DeliveryKind, room_channel, user_channel
from shared.bus.topology import PARTITIONS
from shared.errors import Unavailable
from shared.mongo import Database, Mongo
from tests.bench.plans import INDEXES
from tests.support.chat_world import CREATE_BOTH, PRIVATE, PUBLIC, WAIT_S, Act, ChatWorld, Turn, ack_in
from tests.support.database_proxy import (
    DatabaseProxy,
    EditReply,
    FailWriteConcern,
    FaultRule,
    HoldCommand,
    RefuseCommand,
    database_proxy,
)
from tests.support.log_entries import message_at

COMMIT_STEPS = 6  # the insert; the mark of the room's record; one read of the log
INSERT_TIMEOUT_S = 0.5
WRITE_CONCERN_CODES = {"WriteConcernFailed": 64, "UnsatisfiableWriteConcern": 100}  # PyMongo retries only the first


@dataclass
class TwoWays:
    """One database, reached directly and through a proxy that falsifies."""

    direct: Database
    proxied: Database
    proxy: DatabaseProxy

    async def world(self) -> ChatWorld:
        """Return a world whose first owner is behind the proxy and whose later ones are not; its rooms exist."""
        world = ChatWorld(self.direct)
        world.database = self.proxied
        world.route = await world.claim()
        world.database = self.direct
        await world.take(Turn((*CREATE_BOTH, Act("send", PUBLIC, "ann"))))
        return world


@pytest.fixture
async def ways(mongodb_uri: str, database_name: str) -> AsyncIterator[TwoWays]:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(database_proxy(mongodb_uri))
        direct, proxied = (Mongo(uri, database_name) for uri in (mongodb_uri, proxy.uri))
        for mongo in (direct, proxied):
            stack.push_async_callback(asyncio.to_thread, mongo.close)  # it joins a thread that waits for the proxy
        await direct.wait_ready(INDEXES)
        yield TwoWays(direct.database, proxied.database, proxy)
        proxy.clear()


@pytest.fixture(autouse=True, scope="module")
def _retries_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_commit, "RESOLVE_BACKOFF_FIRST_S", 0.001)
        patch.setattr(partition, "RETRY_BACKOFF_FIRST_S", 0.001)
        patch.setattr(log_store, "INSERT_TIMEOUT_S", INSERT_TIMEOUT_S)
        yield


def stored(log: list[LogEntry]) -> list[str]:
    """Return the ids of the messages of a log."""
    return [entry.id for entry in log if entry.message is not None]


def inserts(*words: str) -> Any:
    """Return a predicate: the insert holds all of these words."""
    return lambda command: all(word in str(command.document) for word in words)


# One owner ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, 8, 2))
async def test_deletions_in_a_quiet_room_are_completed_without_their_owner_and_gateway(
    ways: TwoWays, step: int
) -> None:
    world = ChatWorld(ways.direct)
    owner = world.route = await world.claim()
    await world.take(Turn((*CREATE_BOTH, *[Act("send", PUBLIC, "ann")] * 3)))
    world.now_ms += 2 * repair.LOOK_BACK_MS
    owner.fuse.left, owner.fuse.dies = step, True
    body = world.body(*(Act("erase", PUBLIC, "ann", f"k{number}") for number in range(4)))
    world.send(body, owner)
    waiting: list[asyncio.Future[Any]] = [world.recorder.answered[body.number], owner.running]
    await asyncio.wait(waiting, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    room_id = world.rooms[PUBLIC]
    changes = [entry.change for entry in await world.room_log.after(room_id, 0)]
    erased = [change.message_id for change in changes if isinstance(change, Erasure)]
    touched_since = PositionStore(ways.direct).touched_since
    sent: list[Delivery] = []
    repairing = repair.Repair(world.store, world.messages, world.room_log, touched_since, lambda: world.now_ms)
    await repairing.run(range(PARTITIONS), sent.extend)
    assert [message.text for message in (await world.messages.by_id(erased)).values()] == [""] * len(erased)
    assert bool(erased) == any(delivery.channel == room_channel(room_id) for delivery in sent)
    await world.end()


@pytest.mark.parametrize("step", (3, 6, 9))
async def test_invitation_reaches_its_user_without_its_owner_and_gateway(ways: TwoWays, step: int) -> None:
    """Whether the killed owner had written the records or not."""
    world = ChatWorld(ways.direct)
    owner = world.route = await world.claim()
    await world.take(Turn(CREATE_BOTH))
    owner.fuse.left, owner.fuse.dies = step, True
    world.send(world.body(Act("add", PRIVATE, "cat")), owner)
    await asyncio.wait([owner.running], timeout=WAIT_S)
    sent: list[Delivery] = []
    repairing = repair.Repair(
        world.store, world.messages, world.room_log, PositionStore(ways.direct).touched_since, lambda: world.now_ms
    )
    await repairing.run(range(PARTITIONS), sent.extend)
    to_cat = [delivery for delivery in sent if delivery.channel == user_channel("cat")]
    assert [delivery.kind for delivery in to_cat] == [DeliveryKind.UNORDERED, DeliveryKind.CONTROL]
    assert b"member:invited" in to_cat[0].frame
    await world.end()


# Two owners -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(COMMIT_STEPS))
async def test_owner_frozen_at_any_step_of_commit_thaws_beside_its_successor(ways: TwoWays, step: int) -> None:
    """The successor decides the copy of the body that the frozen owner holds, and then both owners write."""
    world = ChatWorld(ways.direct)
    first = world.route = await world.claim()
    await world.take(Turn((*CREATE_BOTH, Act("send", PUBLIC, "ann"))))
    first.partition._commits._cache.drop(world.rooms)  # so that the log is read too
    first.fuse.freezes_at = step
    body = world.body(Act("send", PUBLIC, "ben"), Act("send", PRIVATE, "ben"), Act("add", PRIVATE, "cat"))
    body.is_contested = True
    world.send(body, first)
    await asyncio.wait_for(first.fuse.frozen.wait(), WAIT_S)
    second = await world.claim()
    world.now_ms += 1_000
    world.send(body, second)
    assert await world.answered(body, second)
    first.fuse.thawed.set()
    await world.take(Turn((Act("send", PUBLIC, "ann"), Act("send", PRIVATE, "ann"))))
    logs = await world.check()
    assert stored(logs[world.rooms[PUBLIC]]) == [world.asked[2], world.asked[3], world.asked[6]]
    assert stored(logs[world.rooms[PRIVATE]]) == [world.asked[4], world.asked[7]]


async def test_copy_decided_by_successor_keeps_first_copy_out(ways: TwoWays) -> None:
    """The frozen owner's insert of the same message is refused after its thaw, and it decides nothing again."""
    world = await ways.world()
    first = world.owners[0]
    held = ways.proxy.inject(HoldCommand(), "insert", collection="room_log")
    body = world.body(Act("send", PUBLIC, "ben"))
    world.send(body, first)
    await held.hit()
    second = await world.claim()
    world.send(body, second)
    assert await world.answered(body, second)
    held.remove()
    held.release()
    await asyncio.wait_for(first.running, WAIT_S)
    log = (await world.check())[world.rooms[PUBLIC]]
    assert stored(log) == world.asked[2:]
    ack = ack_in(world.recorder.replies[world.asked[3]])
    assert ack is not None and not ack.repeated


async def test_removal_by_one_owner_excludes_send_that_another_has_decided(ways: TwoWays) -> None:
    """Either the message precedes the removal, or it is refused; here the removal comes first."""
    world = await ways.world()
    first = world.owners[0]
    held = ways.proxy.inject(HoldCommand(), "insert", collection="room_log")
    sent = world.body(Act("send", PRIVATE, "ben"))
    world.send(sent, first)
    await held.hit()  # decided: ben was a member
    second = await world.claim()
    removal = world.body(Act("remove", PRIVATE, "ben"))
    world.send(removal, second, gateway="another gateway")
    assert await world.answered(removal, second)
    held.remove()
    held.release()
    await asyncio.wait_for(first.running, WAIT_S)
    world.send(sent, second)
    assert await world.answered(sent, second)
    log = await world.room_log.after(world.rooms[PRIVATE], 0)
    assert [entry.kind for entry in log] == [EntryKind.CREATED, EntryKind.REMOVED, EntryKind.VOID]
    assert world.recorder.replies[world.asked[-2]].error is not None
    await world.end()


async def test_message_that_successor_stored_precedes_removal_of_its_sender(ways: TwoWays) -> None:
    """The first owner has decided the removal and is held; the next one takes a message of the removed user."""
    world = await ways.world()
    first = world.owners[0]
    held = ways.proxy.inject(HoldCommand(), "insert", collection="room_log")
    removal = world.body(Act("remove", PRIVATE, "ben"))
    world.send(removal, first)
    await held.hit()
    second = await world.claim()
    sent = world.body(Act("send", PRIVATE, "ben"))
    world.send(sent, second, gateway="another gateway")
    assert await world.answered(sent, second)
    held.remove()
    held.release()
    await asyncio.wait_for(first.running, WAIT_S)
    assert world.asked[-2] not in world.recorder.replies  # the removal was not answered as done
    world.send(removal, second)
    assert await world.answered(removal, second)
    late = world.body(Act("send", PRIVATE, "ben"))
    world.send(late, second, gateway="another gateway")
    assert await world.answered(late, second)
    log = await world.room_log.after(world.rooms[PRIVATE], 0)
    assert [entry.kind for entry in log] == [EntryKind.CREATED, EntryKind.MESSAGE, EntryKind.REMOVED]
    assert world.recorder.replies[world.asked[-1]].error is not None
    await world.end()


# No majority ----------------------------------------------------------------------------------------------------------


concerns = pytest.mark.parametrize("name", WRITE_CONCERN_CODES)


@concerns
async def test_insert_without_majority_has_unknown_outcome(ways: TwoWays, name: str) -> None:
    ways.proxy.inject(FailWriteConcern(WRITE_CONCERN_CODES[name], name), "insert")
    with pytest.raises(Unavailable):
        await LogStore(ways.proxied).insert([message_at(1, "a")])


@concerns
async def test_duplicate_key_without_majority_proves_nothing_about_entries_before_it(ways: TwoWays, name: str) -> None:
    """The majority is lost between two entries of one insert: the first may be rolled back."""
    await LogStore(ways.direct).insert([message_at(2, "other")])
    ways.proxy.inject(FailWriteConcern(WRITE_CONCERN_CODES[name], name), "insert", times=1)
    with pytest.raises(Unavailable):
        await LogStore(ways.proxied).insert([message_at(1, "a"), message_at(2, "b")])
    with pytest.raises(LogConflict) as conflict:
        await LogStore(ways.proxied).insert([message_at(1, "a"), message_at(2, "b")])
    assert conflict.value.stored == 0


class Rollback:
    """Entries that an isolated primary took, removed before anyone asks again."""

    def __init__(self, ways: TwoWays, rule: FaultRule) -> None:
        self._log = ways.direct["room_log"]
        self._rule = rule

    async def run(self) -> None:
        """Remove the documents of the rule's first insert, once it was answered."""
        await self._rule.done()
        documents = self._rule.hits[0].document["documents"]
        await self._log.delete_many({"_id": {"$in": [document["_id"] for document in documents]}})


@concerns
async def test_message_rolled_back_after_insert_is_not_acknowledged_before_it_is_stored(
    ways: TwoWays, name: str
) -> None:
    world = await ways.world()
    first = world.owners[0]
    lost = ways.proxy.inject(FailWriteConcern(WRITE_CONCERN_CODES[name], name, after_s=0.1), "insert", times=1)
    body = world.body(Act("send", PUBLIC, "ann"), Act("send", PUBLIC, "ben"))
    rollback = asyncio.create_task(Rollback(ways, lost).run())
    world.send(body, first)
    assert await world.answered(body, first)
    await rollback
    assert len(lost.hits) == 1
    assert stored((await world.check())[world.rooms[PUBLIC]]) == world.asked[2:]
    assert all(ack_in(world.recorder.replies[id_]) is not None for id_ in world.asked[3:])


@concerns
async def test_majority_lost_between_two_entries_leaves_answers_true(ways: TwoWays, name: str) -> None:
    """Another owner has taken the second entry's rev, so that the reply names a duplicate key as well."""
    world = await ways.world()
    first = world.owners[0]
    second = await world.claim()
    early = world.body(Act("send", PRIVATE, "ann"))
    world.send(early, second, gateway="another gateway")
    assert await world.answered(early, second)
    lost = ways.proxy.inject(FailWriteConcern(WRITE_CONCERN_CODES[name], name, after_s=0.1), "insert", times=1)
    body = world.body(Act("send", PUBLIC, "ben"), Act("send", PRIVATE, "ben"))
    body.is_contested = True
    rollback = asyncio.create_task(Rollback(ways, lost).run())
    world.send(body, first)
    await asyncio.wait_for(first.running, WAIT_S)  # resolved, then a newer term
    await rollback
    assert not world.recorder.replies.keys() & set(world.asked[-2:])
    world.send(body, second)
    assert await world.answered(body, second)
    logs = await world.check()
    assert stored(logs[world.rooms[PUBLIC]]) == [world.asked[2], world.asked[-2]]
    assert stored(logs[world.rooms[PRIVATE]]) == [world.asked[3], world.asked[-1]]


def stepped_down(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reply of a primary that steps down after it has stored the first of two entries."""
    error = {"index": 1, "code": 11602, "errmsg": "operation was interrupted"}
    return {**reply, "n": 1, "writeErrors": [error]}


@pytest.mark.parametrize(
    "effect",
    [EditReply(stepped_down), RefuseCommand(), RefuseCommand(91, "ShutdownInProgress")],
    ids=["interrupted", "not primary", "shutting down"],
)
async def test_primary_that_steps_down_during_insert_loses_and_repeats_nothing(
    ways: TwoWays, effect: EditReply | RefuseCommand
) -> None:
    world = await ways.world()
    rule = ways.proxy.inject(effect, "insert", collection="room_log", times=1)
    body = world.body(Act("send", PUBLIC, "ann"), Act("send", PUBLIC, "ben"))
    world.send(body, world.owners[0])
    assert await world.answered(body, world.owners[0])
    assert len(rule.hits) == 1
    assert stored((await world.check())[world.rooms[PUBLIC]]) == world.asked[2:]


# Out of time ----------------------------------------------------------------------------------------------------------


async def test_insert_that_lands_after_its_command_expired_stores_nothing(ways: TwoWays) -> None:
    """The insert times out; it expires; a void takes its rev; then it arrives at the database."""
    world = await ways.world()
    first = world.owners[0]
    held = ways.proxy.inject(HoldCommand(), "insert", collection="room_log", times=1)
    body = world.body(Act("send", PUBLIC, "ben", is_hasty=True))
    world.send(body, first)
    await held.hit()
    world.now_ms += 10_000  # beyond the command's expiry
    assert await world.answered(body, first)
    held.release()
    await held.done()
    await world.take(Turn((Act("send", PUBLIC, "ann"),)))
    log = (await world.check())[world.rooms[PUBLIC]]
    assert log[2].kind is EntryKind.VOID
    assert stored(log) == [world.asked[2], world.asked[4]]
    assert world.asked[3] not in world.recorder.replies


async def test_insert_that_lands_before_its_void_is_answered_although_its_command_expired(ways: TwoWays) -> None:
    """The void is refused by the entry itself: the stored entry is delivered and acknowledged."""
    world = await ways.world()
    first = world.owners[0]
    held = ways.proxy.inject(HoldCommand(), "insert", collection="room_log", times=2, where=inserts("cmd_"))
    void = ways.proxy.inject(HoldCommand(), "insert", collection="room_log", where=inserts("void_"), times=1)
    body = world.body(Act("send", PUBLIC, "ben", is_hasty=True))
    world.send(body, first)
    await held.hit()
    world.now_ms += 10_000
    await void.hit()
    held.release()
    await held.done()
    void.release()
    assert await world.answered(body, first)
    assert stored((await world.check())[world.rooms[PUBLIC]]) == world.asked[2:]
    assert ack_in(world.recorder.replies[world.asked[3]]) is not None


async def test_stored_command_is_not_refused_when_its_records_cannot_be_written(ways: TwoWays) -> None:
    """Its sender hears nothing, as after a lost answer, and finds it done when it asks again."""
    world = await ways.world()
    owner = world.owners[0]
    invalid = ways.proxy.inject(RefuseCommand(121, "DocumentValidationFailure"), "update", collection="room_members")
    body = world.body(Act("join", PUBLIC, "ben"))
    world.send(body, owner)
    assert await world.answered(body, owner)
    assert world.asked[-1] not in world.recorder.replies
    world.hasty.add(world.asked[-1])
    invalid.remove()
    again = world.body(Act("send", PUBLIC, "ben"))
    world.send(again, owner)
    assert await world.answered(again, owner)
    await world.check()


async def test_stored_command_waits_while_database_refuses_its_records(ways: TwoWays) -> None:
    """An error that no input causes is an outage: the command is answered once the database takes the records."""
    world = await ways.world()
    owner = world.owners[0]
    forbidden = ways.proxy.inject(RefuseCommand(13, "Unauthorized"), "update", collection="room_members")
    body = world.body(Act("join", PUBLIC, "ben"))
    world.send(body, owner)
    await forbidden.hit(partition.FAILURES_MAX + 2)
    assert world.asked[-1] not in world.recorder.replies
    forbidden.remove()
    assert await world.answered(body, owner)
    assert world.asked[-1] in world.recorder.replies
    await world.check()


async def test_resolution_waits_while_database_is_away(ways: TwoWays) -> None:
    """No later command of the room is decided before the outcome of the insert is known."""
    batch = [message_at(5, "a")]
    away = ways.proxy.inject(RefuseCommand(), "insert")
    commit = asyncio.create_task(GroupCommit(LogStore(ways.proxied)).commit(batch, lambda: False))
    await away.hit(5)
    assert not commit.done()
    away.remove()
    with pytest.raises(LogConflict):
        await commit
    assert await LogStore(ways.direct).after("r", 0) == batch
