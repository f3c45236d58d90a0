"""Partitions on the real database, under random commands, failures between any two steps, and a second owner."""

import asyncio
import itertools
import zlib
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_service.partitions import partition, room_cache
from chat_service.rooms.log import EntryKind, LogEntry, void_at
from chat_service.rooms.message import RecentMessages
from chat_service.storage import group_commit
from chat_service.storage.group_commit import GroupCommit
from chat_service.storage.log_store import LogConflict, LogStore
from shared.bus.delivery import DeliveryKind
from shared.errors import ErrorCode
from shared.mongo import Database
from tests.bench.plans import INDEXES
from tests.support.chat_world import (
    CHANGED_MESSAGES,
    CREATE_BOTH,
    PRIVATE,
    PUBLIC,
    STEPS_MAX,
    USERS,
    WAIT_S,
    Act,
    ChatWorld,
    FaultyLog,
    Fuse,
    Turn,
    ack_in,
)
from tests.support.log_entries import message_at
from tests.support.ready_database import ready_database

users, rooms = st.sampled_from(USERS), st.sampled_from((PUBLIC, PUBLIC, PRIVATE))
keys = st.sampled_from((None, "k1", "k2"))
sends = st.builds(Act, st.just("send"), rooms, users, keys, st.booleans())
others = st.builds(
    Act, st.sampled_from(("join", "leave", "add", "remove", "create", "read", "moderator", "creator")), rooms, users
)
changes = st.builds(
    Act, st.sampled_from(("edit", "erase", "react", "react", "unreact", "pin", "unpin")), rooms, users, keys
)
acts = st.lists(st.one_of(sends, others, changes), min_size=1, max_size=6).map(tuple)
fails = st.none() | st.integers(0, STEPS_MAX)
successions = st.lists(st.builds(Turn, acts, fails, st.booleans()), min_size=2, max_size=7)
contests = st.lists(st.builds(Turn, acts, fails, st.booleans(), st.booleans(), st.booleans()), min_size=2, max_size=7)


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        yield database


@pytest.fixture(autouse=True, scope="module")
def _retries_at_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_commit, "RESOLVE_BACKOFF_FIRST_S", 0.001)
        patch.setattr(partition, "RETRY_BACKOFF_FIRST_S", 0.001)
        yield


def key_of_first_message(user: str, pattern: str) -> str:
    """Return a key by which an act of this user changes the first message of a room."""
    keys = map(pattern.format, itertools.count())
    return next(key for key in keys if zlib.crc32(f"{user}{key}".encode()) % CHANGED_MESSAGES == 0)


bounded = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@bounded
@given(plan=successions)
async def test_failure_at_any_step_keeps_promises(database: Database, plan: list[Turn]) -> None:
    world = ChatWorld(database)
    for turn in [Turn(CREATE_BOTH), *plan]:
        await world.take(turn)
    await world.check()


@bounded
@given(plan=contests)
async def test_two_owners_at_once_keep_promises(database: Database, plan: list[Turn]) -> None:
    world = ChatWorld(database)
    for turn in [Turn(CREATE_BOTH), *plan]:
        await world.take(turn)
    await world.check()


async def test_message_is_stored_once_over_restarts(database: Database) -> None:
    world = ChatWorld(database)
    for acts in (CREATE_BOTH, *[(Act("send", PUBLIC, "ann", "k1"),)] * 3):
        world.route = await world.claim()
        await world.take(Turn(acts))
    log = (await world.check())[world.rooms[PUBLIC]]
    assert [entry.id for entry in log if entry.message is not None] == [world.asked[2]]
    acks = [ack_in(world.recorder.replies[id_]) for id_ in world.asked[2:]]
    assert [ack is not None and ack.repeated for ack in acks] == [False, True, True]


async def forgetful_world(database: Database, monkeypatch: pytest.MonkeyPatch, remembered: int) -> ChatWorld:
    """Return a world whose owners remember that many messages of a room."""
    monkeypatch.setattr(room_cache, "RecentMessages", lambda: RecentMessages(max_count=remembered))
    world = ChatWorld(database)
    world.route = await world.claim()
    return world


async def test_repeats_that_only_the_log_knows_add_no_entry(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each conflicts with its stored message, which the owner has forgotten."""
    world = await forgetful_world(database, monkeypatch, remembered=1)
    one, two = Act("send", PUBLIC, "ann", "k1"), Act("send", PUBLIC, "ann", "k2")
    for acts in (CREATE_BOTH, (one, two), *[(one,), (two,)] * 3):
        await world.take(Turn(acts))
    log = (await world.check())[world.rooms[PUBLIC]]
    assert [entry.kind for entry in log] == [EntryKind.CREATED, EntryKind.MESSAGE, EntryKind.MESSAGE]
    await world.end()


async def test_more_repeats_than_are_remembered_are_answered_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await forgetful_world(database, monkeypatch, remembered=2)
    sends = tuple(Act("send", PUBLIC, "ann", f"k{number}") for number in range(6))
    for acts in (CREATE_BOTH, sends, (*sends, Act("send", PUBLIC, "ann", "new"))):
        await world.take(Turn(acts))
    log = (await world.check())[world.rooms[PUBLIC]]
    assert [entry.kind for entry in log] == [EntryKind.CREATED, *[EntryKind.MESSAGE] * 7]
    acks = [ack_in(world.recorder.replies[id_]) for id_ in world.asked[-7:]]
    assert [ack is not None and ack.repeated for ack in acks] == [*[True] * 6, False]
    await world.end()


async def test_room_that_this_release_cannot_read_refuses_its_commands_alone(database: Database) -> None:
    world = ChatWorld(database)
    world.route = await world.claim()
    await world.take(Turn(CREATE_BOTH))
    later = {"_id": "later", "roomId": world.rooms[PRIVATE], "rev": 2, "kind": "room.sealed"}
    await database["room_log"].insert_one(later)
    world.route = await world.claim()
    body = world.body(Act("send", PRIVATE, "ben"), Act("send", PUBLIC, "ann"), Act("join", PRIVATE, "ann"))
    world.send(body, world.route)
    assert await world.answered(body, world.route)
    errors = [world.recorder.replies[id_].error for id_ in world.asked[2:]]
    codes = [None if error is None else error.code for error in errors]
    assert codes == [ErrorCode.UNAVAILABLE, None, ErrorCode.UNAVAILABLE]
    await world.end()


async def test_shared_entry_of_reactions_is_delivered_once_to_their_resent_commands(database: Database) -> None:
    world = ChatWorld(database)
    world.route = await world.claim()
    await world.take(Turn((*CREATE_BOTH, Act("send", PUBLIC, "ann"))))
    emoji = key_of_first_message("ann", ":k{}:")
    before = len(world.recorder.deliveries)
    await world.take(Turn(tuple(Act("react", PUBLIC, user, emoji) for user in ("ann", "ben", "cat")), fails_at=5))
    reactions = [
        entry for entry in await world.room_log.after(world.rooms[PUBLIC], 0) if entry.kind is EntryKind.REACTED
    ]
    assert len(reactions) == 1
    ordered = [one for one in world.recorder.deliveries[before:] if one.kind is DeliveryKind.ORDERED]
    assert (
        len([one for one in ordered if one.position == reactions[0].rev]) <= 2
    )  # as the room was loaded, and answered
    await world.check()
    await world.end()


async def test_nothing_is_committed_while_socket_to_broker_is_full(database: Database) -> None:
    world = ChatWorld(database)
    owner = await world.claim()
    created = world.body(*CREATE_BOTH)
    owner.outlet.unsent_bytes = partition.UNSENT_MAX_BYTES + 1
    world.send(created, owner)
    await asyncio.sleep(0.1)
    assert await world.room_log.after(world.rooms[PUBLIC], 0) == []
    owner.outlet.unsent_bytes = 0
    assert await world.answered(created, owner)
    assert len(await world.room_log.after(world.rooms[PUBLIC], 0)) == 1
    await world.end()


async def test_stored_message_is_acknowledged_although_its_sender_was_removed_since(database: Database) -> None:
    """Its owner died between the commit and the answer; its copy arrives at the next owner after the removal."""
    world = ChatWorld(database)
    first = world.route = await world.claim()
    await world.take(Turn(CREATE_BOTH))
    body = world.body(Act("send", PRIVATE, "ben"))
    first.fuse.left = 5  # three steps of the insert and two of the mark of the room; then the answer
    world.send(body, first)
    assert not await world.answered(body, first)
    second = await world.claim()
    removal = world.body(Act("remove", PRIVATE, "ben"))
    world.send(removal, second, gateway="another gateway")
    assert await world.answered(removal, second)
    world.send(body, second)
    assert await world.answered(body, second)
    ack = ack_in(world.recorder.replies[world.asked[2]])
    assert ack is not None
    assert (ack.message.seq, ack.repeated) == (1, True)
    log = await world.room_log.after(world.rooms[PRIVATE], 0)
    assert [entry.kind for entry in log] == [EntryKind.CREATED, EntryKind.MESSAGE, EntryKind.REMOVED]
    await world.end()


async def test_refused_copy_keeps_the_first_one_out_of_the_log(database: Database) -> None:
    """The first owner is frozen before its commit while the next one refuses the copy of the message."""
    world = ChatWorld(database)
    first = world.route = await world.claim()
    await world.take(Turn((*CREATE_BOTH, Act("send", PRIVATE, "ben"))))
    first.log.thawed = asyncio.Event()
    body = world.body(Act("send", PRIVATE, "ben"))
    world.send(body, first)
    await first.log.frozen.wait()
    second = await world.claim()
    removal = world.body(Act("remove", PRIVATE, "ben"))
    world.send(removal, second, gateway="another gateway")
    assert await world.answered(removal, second)
    world.send(body, second)
    assert await world.answered(body, second)
    first.log.thawed.set()
    await asyncio.wait_for(first.running, WAIT_S)  # a refusal, and then a newer term
    log = await world.room_log.after(world.rooms[PRIVATE], 0)
    assert [entry.kind for entry in log] == [
        EntryKind.CREATED,
        EntryKind.MESSAGE,
        EntryKind.REMOVED,
        EntryKind.VOID,
    ]
    error = world.recorder.replies[world.asked[-2]].error
    assert error is not None
    assert error.code is ErrorCode.NOT_FOUND
    await world.end()


async def test_stale_owner_decides_nothing_that_its_successor_does_not_know(database: Database) -> None:
    world = ChatWorld(database)
    await world.take(Turn((*CREATE_BOTH, Act("send", PUBLIC, "ann"))))
    old = world.owners[0]
    await world.take(Turn((Act("send", PUBLIC, "ben"), Act("join", PUBLIC, "cat")), is_late=True))
    await asyncio.wait_for(old.running, WAIT_S)
    assert world.route is world.owners[1]
    log = (await world.check())[world.rooms[PUBLIC]]
    assert [entry.author_id for entry in log if entry.message is not None] == ["ann", "dan", "ben"]


@pytest.mark.parametrize("step", (3, 5))
async def test_reaction_to_a_message_deleted_with_it_is_answered_by_the_next_owner(
    database: Database, step: int
) -> None:
    world = ChatWorld(database)
    world.route = await world.claim()
    await world.take(Turn((*CREATE_BOTH, *[Act("send", PUBLIC, "ann")] * 3)))
    emoji, key = key_of_first_message("ben", ":k{}:"), key_of_first_message("ann", "e{}")
    await world.take(Turn((Act("react", PUBLIC, "ben", emoji), Act("erase", PUBLIC, "ann", key)), step))
    reaction, deletion = (world.recorder.replies[id_] for id_ in world.asked[-2:])
    assert reaction.error is None
    assert deletion.error is None
    await world.check()
    await world.end()


@pytest.mark.parametrize("step", range(3), ids=("before the insert", "amid the insert", "after the insert"))
async def test_lost_answer_of_the_database_refuses_and_repeats_nothing(database: Database, step: int) -> None:
    world = ChatWorld(database)
    await world.take(Turn(CREATE_BOTH))
    await world.take(Turn((Act("send", PUBLIC, "ann"), Act("send", PUBLIC, "ann")), step, dies=False))
    log = (await world.check())[world.rooms[PUBLIC]]
    assert [entry.id for entry in log if entry.message is not None] == world.asked[2:]
    assert all(ack_in(world.recorder.replies[id_]) is not None for id_ in world.asked[2:])


async def test_projection_that_fails_does_not_refuse_entries_in_the_log(database: Database) -> None:
    world = ChatWorld(database)
    owner = world.route = await world.claim()
    await world.take(Turn(CREATE_BOTH))
    for fails_at in range(3, 12):  # after the three steps of the insert
        who, what = USERS[1 + fails_at % 3], ("leave", "join")[fails_at // 3 % 2]
        await world.take(Turn((Act(what, PUBLIC, who),), fails_at, dies=False))
    assert not owner.running.done()
    log = (await world.check())[world.rooms[PUBLIC]]
    assert len([entry for entry in log if entry.kind is not EntryKind.VOID]) == 10
    assert all(reply.error is None for reply in world.recorder.replies.values())


# The unique keys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refused",
    [message_at(5, "other"), message_at(7, "first"), message_at(7, "other", "key")],
    ids=("rev", "command id", "clientMessageId"),
)
async def test_log_refuses_second_entry_and_stops_there(database: Database, refused: LogEntry) -> None:
    room_log = LogStore(database)
    first = message_at(5, "first", "key")
    await room_log.insert([first])
    before, after = message_at(6, "before"), message_at(8, "after")
    with pytest.raises(LogConflict) as conflict:
        await room_log.insert([before, refused, after])
    assert conflict.value.stored == 1
    assert await room_log.after("r", 0) == [first, before]


async def test_entries_without_message_or_client_id_do_not_exclude_each_other(database: Database) -> None:
    room_log = LogStore(database)
    entries = [void_at("r", rev, 1, 1) for rev in (1, 2)] + [message_at(3, "a"), message_at(4, "b")]
    await room_log.insert(entries)
    assert await room_log.after("r", 0) == entries
    assert await room_log.by_client_id([("r", "ann", "key")]) == []


async def test_first_copy_that_lands_after_its_resolution_is_refused(database: Database) -> None:
    fuse = Fuse()
    room_log = FaultyLog(database, fuse)
    batch = [message_at(5, "a"), message_at(6, "b")]
    fuse.left, fuse.dies = 0, False
    with pytest.raises(LogConflict):
        await GroupCommit(room_log).commit(batch, lambda: True)
    assert [(entry.rev, entry.kind) for entry in await room_log.after("r", 0)] == [(5, EntryKind.VOID)]
    with pytest.raises(LogConflict):
        await room_log.insert(batch)
    assert len(await room_log.after("r", 0)) == 1
