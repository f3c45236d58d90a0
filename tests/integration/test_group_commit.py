"""A partition on the real database, under random commands, crashes between any two steps, and a second writer.

The bus is replaced at its seam, `Publisher`, which records deliveries and replies; a fault can strike there as well.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_service import presence_store, store
from chat_service.group_insert import GroupInsert
from chat_service.group_read import GroupRead
from chat_service.messages import Message, message_frame
from chat_service.partition import Partition
from chat_service.presence_store import PresenceStore
from chat_service.profile_store import ProfileStore
from chat_service.profiles import Profiles
from chat_service.rate_limit import RateLimiter
from chat_service.rate_window import SlidingWindow
from chat_service.repair import repair
from chat_service.rooms import Member, Room
from chat_service.store import RoomStore
from chat_service.write_behind import Post
from shared.bus.bus import Bus
from shared.bus.consumer import Line
from shared.bus.delivery import Delivery, DeliveryClass, room_channel
from shared.bus.topology import PARTITIONS
from shared.commands.chat import (
    AddMember,
    CreateRoom,
    JoinRoom,
    LeaveRoom,
    MarkRead,
    RemoveMember,
    RoomCommand,
    SendMessage,
    Sent,
    UpdateRoom,
)
from shared.commands.command import Caller, Reply
from shared.encoding import to_json
from shared.errors import Unavailable
from shared.mongo import Database, Mongo
from shared.protocol.server_frames import UserProfile
from tests.support.publishing import PublisherStub

USERS = ("ann", "ben", "cat", "dan")  # ann makes the rooms
PUBLIC, PRIVATE = 0, 1
FAR_MS = 10_000_000
TICK_MS = 1_000
STEPS_MAX = 30

T = TypeVar("T")
_examples = itertools.count(1)

# What may happen ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """A future command: `what` on `room` by or on `user`. `is_hasty`: its deadline passes before a redelivery."""

    what: str
    room: int
    user: str
    key: str | None = None
    is_hasty: bool = False


@dataclass(frozen=True)
class Turn:
    """A batch. `fails_at`: the step at which its replica fails; beyond the last step, it fails before the acks.

    `dies`: the replica loses its memory; otherwise the same partition gets the lines again. `again`: the acks are lost.
    `replica`, and `both` of them at once, matter in tests with two.
    """

    acts: tuple[Act, ...]
    fails_at: int | None = None
    dies: bool = True
    apart: bool = False
    again: bool = False
    replica: int = 0
    both: bool = False


sends = st.builds(
    Act,
    st.just("send"),
    st.sampled_from((PUBLIC, PUBLIC, PRIVATE)),
    st.sampled_from(USERS),
    st.sampled_from((None, "k1", "k2")),
    st.booleans(),
)
others = st.builds(
    Act,
    st.sampled_from(("join", "leave", "add", "remove", "create", "read")),
    st.sampled_from((PUBLIC, PRIVATE)),
    st.sampled_from(USERS),
)
turns = st.builds(
    Turn,
    st.lists(st.one_of(sends, others), min_size=1, max_size=6).map(tuple),
    st.none() | st.integers(0, STEPS_MAX),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1),
    st.booleans(),
)
plans = st.lists(turns, min_size=2, max_size=7)

# The seams where it happens -------------------------------------------------------------------------------------------


class CommitCrash(Exception):
    """The process, or a dependency, is gone at this step."""


class Fuse:
    """Counts the steps of a commit, and fails at one."""

    def __init__(self) -> None:
        self._left: int | None = None

    def arm(self, at: int | None) -> None:
        self._left = at

    @property
    def is_armed(self) -> bool:
        return self._left is not None

    def step(self) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left < 0:
            self._left = None
            raise CommitCrash

    async def around(self, write: Callable[[Sequence[T]], Awaitable[None]], what: Sequence[T]) -> None:
        """Write, with a failure before, halfway or after."""
        self.step()
        half = len(what) // 2
        try:
            self.step()
        except CommitCrash:
            await write(what[:half])
            raise
        await write(what)
        self.step()


class FaultyRooms(RoomStore):
    """The real store, with faults between its writes."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        super().__init__(database)
        self._fuse = fuse

    async def put_members(self, changed: dict[tuple[str, str], Member | None], term: int) -> None:
        write = super().put_members
        await self._fuse.around(lambda some: write(dict(some), term), list(changed.items()))

    async def insert_messages(self, messages: Sequence[Message]) -> None:
        await self._fuse.around(super().insert_messages, messages)

    async def put_rooms(self, rooms: Collection[Room]) -> None:
        await self._fuse.around(super().put_rooms, list(rooms))

    async def touch_rooms(self, room_ids: Collection[str], at_ms: int) -> None:
        write = super().touch_rooms
        await self._fuse.around(lambda some: write(some, at_ms), list(room_ids))

    async def advance_rooms(self, posts: Collection[Post]) -> None:
        await self._fuse.around(super().advance_rooms, list(posts))

    async def put_read_marks(self, marks: dict[tuple[str, str], int]) -> None:
        write = super().put_read_marks
        await self._fuse.around(lambda some: write(dict(some)), list(marks.items()))


class FreezingRooms(RoomStore):
    """The real store of a process that freezes after its lease check, before it writes memberships."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.frozen, self.thawed = asyncio.Event(), asyncio.Event()

    async def put_members(self, changed: dict[tuple[str, str], Member | None], term: int) -> None:
        self.frozen.set()
        await self.thawed.wait()
        await super().put_members(changed, term)


class FaultyPresence(PresenceStore):
    """The real store, with a fault around the write that commits make here."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        super().__init__(database)
        self._fuse = fuse

    async def mark_new_members(self, members: Collection[tuple[str, str]]) -> None:
        await self._fuse.around(super().mark_new_members, list(members))


class Recorder(PublisherStub):
    """The bus as a partition sees it. A delivery may have left although its confirm fails."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse
        self.deliveries: list[Delivery] = []
        self.replies: list[Reply] = []

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        self._fuse.step()
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        confirm.add_done_callback(lambda done: done.exception())
        self.deliveries.append(delivery)
        try:
            self._fuse.step()
        except CommitCrash as error:
            confirm.set_exception(error)
        else:
            confirm.set_result(None)
        return confirm

    def reply(self, reply_to: str, line: bytes) -> None:
        self._fuse.step()
        self.replies.append(msgspec.json.decode(line, type=Reply))


# The world ------------------------------------------------------------------------------------------------------------


@dataclass
class PartitionWorld:
    """Two rooms of one example, their queue, and the replicas that write them."""

    database: Database
    number: int = field(default_factory=lambda: next(_examples))
    now_ms: int = 1_000_000
    sent: dict[str, str] = field(default_factory=dict)  # command ids by message ids, as they were queued
    hasty: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fuse = Fuse()
        self.bus = Recorder(self.fuse)
        self.rooms = tuple(f"room_{self.number}_{index}" for index in (PUBLIC, PRIVATE))
        self.store = RoomStore(self.database)

    def partition(
        self,
        inserts: GroupInsert | None = None,
        rooms: RoomStore | None = None,
        is_current: Callable[[], bool] = lambda: True,
    ) -> Partition:
        """Return the partition of a fresh replica, or another one of a replica with its `inserts`."""
        rates = RateLimiter(SlidingWindow(10_000), Bus("amqp://nobody.invalid", "node"), "node", lambda: self.now_ms)
        rooms = rooms or FaultyRooms(self.database, self.fuse)
        return Partition(
            0,
            rooms,
            FaultyPresence(self.database, self.fuse),
            Profiles(ProfileStore(self.database), "node", lambda: self.now_ms),
            rates,
            self.bus,
            inserts or GroupInsert(rooms),
            GroupRead(rooms.active_now),
            lambda: self.now_ms,
            is_current,
        )

    def lines(self, acts: Sequence[Act]) -> list[Line]:
        return [Line(to_json(self._command(act)), "replies", "chat.0", redelivered=False) for act in acts]

    def _command(self, act: Act) -> RoomCommand:
        id_ = f"cmd_{self.number}_{len(self.asked)}"
        self.asked.append(id_)
        deadline_ms = self.now_ms + (TICK_MS + TICK_MS // 2 if act.is_hasty else FAR_MS)
        room, by_user, by_ann = self.rooms[act.room], _caller(act.user), _caller("ann")
        match act.what:
            case "send":
                message_id = f"msg_{self.number}_{len(self.sent)}"
                self.sent[message_id] = id_
                if act.is_hasty:
                    self.hasty.add(id_)
                return SendMessage(
                    id=id_,
                    deadline_ms=deadline_ms,
                    caller=by_user,
                    room_id=room,
                    message_id=message_id,
                    message=f"text of {message_id}",
                    client_message_id=act.key,
                )
            case "create":
                kind, members = (("public", ()), ("private", ("ben",)))[act.room]
                return CreateRoom(
                    id=id_,
                    deadline_ms=deadline_ms,
                    caller=by_ann,
                    room_id=room,
                    name="Room",
                    description="",
                    type=kind,
                    member_ids=members,
                )
            case "join":
                return JoinRoom(id=id_, deadline_ms=deadline_ms, caller=by_user, room_id=room)
            case "leave":
                return LeaveRoom(id=id_, deadline_ms=deadline_ms, caller=by_user, room_id=room)
            case "add":
                return AddMember(id=id_, deadline_ms=deadline_ms, caller=by_ann, room_id=room, user_id=act.user)
            case "remove":
                return RemoveMember(id=id_, deadline_ms=deadline_ms, caller=by_ann, room_id=room, user_id=act.user)
            case "read":
                return MarkRead(id=id_, deadline_ms=deadline_ms, caller=by_user, room_id=room, seq=1)
            case _:
                raise AssertionError(act.what)

    async def handle(self, partition: Partition, lines: list[Line], fails_at: int | None = None) -> bool:
        """Handle a batch, and return whether it may be acknowledged. Otherwise its lines are redelivered."""
        self.now_ms += TICK_MS
        self.fuse.arm(fails_at)
        try:
            await partition.handle(lines)
            failed = self.fuse.is_armed
        except CommitCrash:
            failed = True
        finally:
            self.fuse.arm(None)
        for line in lines:
            assert line.rejected is None
            line.redelivered = line.redelivered or failed
        await self.check_logs()
        return not failed

    async def check_logs(self) -> dict[str, list[Message]]:
        """Check that each log on disk is 1, 2, 3, … at this moment."""
        logs = {room: await self.store.messages_between(room, 0, 2**31) for room in self.rooms}
        for log in logs.values():
            assert [message.seq for message in log] == list(range(1, len(log) + 1))
        return logs

    async def check(self) -> dict[str, list[Message]]:
        """Check logs, acks, deliveries and counts after the last acknowledgement. Returns the logs."""
        logs = await self.check_logs()
        stored = {message.id: message for log in logs.values() for message in log}
        assert len(stored) == sum(map(len, logs.values()))
        acks = [ack for reply in self.bus.replies if (ack := _ack(reply)) is not None]
        for ack in acks:
            message = stored[ack.message.id]
            assert (message.room_id, message.seq) == (ack.message.chatroom_id, ack.message.seq)
        keys = [
            (message.room_id, message.user_id, message.client_message_id)
            for message in stored.values()
            if message.client_message_id is not None
        ]
        assert len(keys) == len(set(keys))
        frames: dict[tuple[str, int], set[bytes]] = defaultdict(set)
        for delivery in self.bus.deliveries:
            if delivery.kind is DeliveryClass.LOSSLESS:
                frames[delivery.channel, delivery.seq].add(delivery.frame)
        assert frames == {
            (room_channel(message.room_id), message.seq): {message_frame(message)} for message in stored.values()
        }
        await repair(self.store, lambda: self.now_ms, range(PARTITIONS))
        rooms = await self.store.rooms(self.rooms)
        for room in rooms.values():
            members, total = await self.store.member_page(room.id, 0, 100)
            assert room.member_count == total == len(members) == len({member.user_id for member in members})
            assert room.last_seq == len(logs[room.id])
            for member in members:
                assert member.read_seq >= max(
                    (one.seq for one in logs[room.id] if one.user_id == member.user_id), default=0
                )
        answered = {reply.id for reply in self.bus.replies}
        assert set(self.asked) - self.hasty <= answered <= set(self.asked)
        return logs


def _caller(user_id: str) -> Caller:
    return Caller(user_id=user_id, profile=UserProfile(first_name=user_id.title()))


def _ack(reply: Reply) -> Sent | None:
    if reply.error is not None or b'"repeated"' not in bytes(reply.data):
        return None
    return msgspec.json.decode(reply.data, type=Sent)


CREATE_BOTH = (Act("create", PUBLIC, "ann"), Act("create", PRIVATE, "ann"))

# The tests ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    mongo = Mongo(mongodb_uri, database_name)
    await mongo.wait_ready({**store.INDEXES, **presence_store.INDEXES})
    yield mongo.database
    mongo.close()


bounded = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@bounded
@given(plan=plans)
async def test_crash_at_any_step_keeps_log_consistent(database: Database, plan: list[Turn]) -> None:
    """One owner follows another, as with single active consumer: the log has the queue's order."""
    world = PartitionWorld(database)
    partition = world.partition()
    unacknowledged: list[Line] = []
    for turn in [Turn(CREATE_BOTH), *plan]:
        lines = unacknowledged + world.lines(turn.acts)
        done = await world.handle(partition, lines, turn.fails_at)
        if not done and turn.dies:
            partition = world.partition()
        if not done and not turn.dies and turn.apart:  # as the consumer does when a batch fails for an unknown reason
            for line in lines:
                assert await world.handle(partition, [line])
            done = True
        if done and turn.again:  # the acks were lost with the connection
            for line in lines:
                line.redelivered = True
        unacknowledged = [] if done and not turn.again else lines
    assert not unacknowledged or await world.handle(partition, unacknowledged)
    logs = await world.check()
    refused = {reply.id for reply in world.bus.replies if reply.error is not None}  # decided again, if the ack was lost
    order = list(world.sent)
    for log in logs.values():
        places = [order.index(message.id) for message in log if world.sent[message.id] not in refused]
        assert places == sorted(places)


@bounded
@given(plan=plans)
async def test_concurrent_and_stale_writers_keep_one_log(database: Database, plan: list[Turn]) -> None:
    """The replaced writer continues with its old memory, or with the very same lines."""
    world = PartitionWorld(database)
    replicas = [world.partition(), world.partition()]
    unacknowledged: list[Line] = []
    for turn in [Turn(CREATE_BOTH), *plan]:
        lines = unacknowledged + world.lines(turn.acts)
        if turn.both:
            redelivered = [Line(line.body, line.reply_to, line.routing_key, redelivered=True) for line in lines]
            one, other = await asyncio.gather(
                world.handle(replicas[turn.replica], lines, turn.fails_at),
                world.handle(replicas[1 - turn.replica], redelivered),
            )
            done = one and other
        else:
            done = await world.handle(replicas[turn.replica], lines, turn.fails_at)
        if not done and turn.dies:
            replicas[turn.replica] = world.partition()
        if not done:
            for line in lines:
                line.redelivered = True
        unacknowledged = [] if done else lines
    assert not unacknowledged or await world.handle(replicas[0], unacknowledged)
    await world.check()


async def test_stale_writer_conflicts_and_continues_behind_the_other(database: Database) -> None:
    world = PartitionWorld(database)
    old, new = world.partition(), world.partition()
    assert await world.handle(old, world.lines(CREATE_BOTH))
    assert await world.handle(old, world.lines([Act("send", PUBLIC, "ann")] * 2))
    assert await world.handle(new, world.lines([Act("send", PUBLIC, "ben"), Act("join", PUBLIC, "cat")]))
    assert await world.handle(old, world.lines([Act("send", PUBLIC, "dan"), Act("leave", PUBLIC, "cat")]))
    assert await world.handle(new, world.lines([Act("send", PUBLIC, "ann")]))
    log = (await world.check())[world.rooms[PUBLIC]]
    assert [message.user_id for message in log] == ["ann", "ann", "ben", "dan", "ann"]
    assert (await world.store.rooms(world.rooms))[world.rooms[PUBLIC]].member_count == 3


@pytest.mark.parametrize(
    ("frozen", "next_owner", "members"),
    [
        ("add", ("add", "remove"), {"ann", "ben"}),
        ("remove", ("remove", "add"), {"ann", "ben", "cat"}),
        ("add", ("add",), {"ann", "ben", "cat"}),
    ],
)
async def test_frozen_owner_undoes_nothing_of_its_successor(
    database: Database, frozen: str, next_owner: tuple[str, ...], members: set[str]
) -> None:
    """The successor gets the command in hand again, and then others."""
    world = PartitionWorld(database)
    store, has_lease = FreezingRooms(database), True
    old, new = world.partition(rooms=store, is_current=lambda: has_lease), world.partition()
    room = world.rooms[PRIVATE]
    assert await world.handle(new, world.lines([*CREATE_BOTH, Act("add" if frozen == "remove" else "read", 1, "cat")]))
    new.forget()
    lines = world.lines([Act(frozen, PRIVATE, "cat")])
    writing = asyncio.create_task(old.handle(lines))
    await store.frozen.wait()
    has_lease = False
    again = [Line(line.body, line.reply_to, line.routing_key, redelivered=True) for line in lines]
    assert await world.handle(new, again)
    for what in next_owner[1:]:
        assert await world.handle(new, world.lines([Act(what, PRIVATE, "cat")]))
    store.thawed.set()
    with pytest.raises(Unavailable):
        await writing
    page, total = await world.store.member_page(room, 0, 100)
    assert {member.user_id for member in page} == members
    assert total == len(members) == (await world.store.rooms([room]))[room].member_count


async def test_frozen_owner_adds_nobody_to_room_made_private(database: Database) -> None:
    """The successor gets the message that would have joined cat again, but too late."""
    world = PartitionWorld(database)
    store, has_lease = FreezingRooms(database), True
    old, new = world.partition(rooms=store, is_current=lambda: has_lease), world.partition()
    room = world.rooms[PUBLIC]
    assert await world.handle(new, world.lines(CREATE_BOTH))
    new.forget()
    lines = world.lines([Act("send", PUBLIC, "cat", is_hasty=True)])
    writing = asyncio.create_task(old.handle(lines))
    await store.frozen.wait()
    has_lease = False
    world.now_ms += 2 * FAR_MS
    again = [Line(line.body, line.reply_to, line.routing_key, redelivered=True) for line in lines]
    assert await world.handle(new, again)
    closing = UpdateRoom(
        id="closing", deadline_ms=world.now_ms + FAR_MS, caller=_caller("ann"), room_id=room, type="private"
    )
    assert await world.handle(new, [Line(to_json(closing), "replies", "chat.0", redelivered=False)])
    store.thawed.set()
    with pytest.raises(Unavailable):
        await writing
    page, total = await world.store.member_page(room, 0, 100)
    assert ([member.user_id for member in page], total) == (["ann"], 1)
    assert (await world.store.rooms([room]))[room].member_count == 1


async def test_resent_message_is_found_by_new_replica(database: Database) -> None:
    world = PartitionWorld(database)
    assert await world.handle(world.partition(), world.lines(CREATE_BOTH))
    for _ in range(3):
        assert await world.handle(world.partition(), world.lines([Act("send", PUBLIC, "ann", "k1")]))
    log = (await world.check())[world.rooms[PUBLIC]]
    assert [message.id for message in log] == [next(iter(world.sent))]
    acks = [ack for reply in world.bus.replies if (ack := _ack(reply)) is not None]
    assert [ack.repeated for ack in acks] == [False, True, True]


async def test_stored_message_is_delivered_after_its_deadline(database: Database) -> None:
    world = PartitionWorld(database)
    assert await world.handle(world.partition(), world.lines(CREATE_BOTH))
    stored, unstored = (world.lines([Act("send", PUBLIC, "ann", is_hasty=True)]) for _ in range(2))
    after_insert = 6  # three steps each: before, amid and after members, and messages
    assert not await world.handle(world.partition(), stored, after_insert)
    assert await world.handle(world.partition(), stored)
    assert not await world.handle(world.partition(), unstored, 0)
    assert await world.handle(world.partition(), unstored)
    log = (await world.check())[world.rooms[PUBLIC]]
    assert [message.id for message in log] == [next(iter(world.sent))]


async def test_memberships_without_terms_are_migrated(database: Database) -> None:
    world = PartitionWorld(database)
    assert await world.handle(world.partition(), world.lines(CREATE_BOTH))
    await database["partitions"].delete_many({})
    await database["members"].update_many({}, {"$unset": {"term": "", "removed": ""}})
    assert await world.handle(
        world.partition(), world.lines([Act("leave", PRIVATE, "ben"), Act("send", PUBLIC, "ann")])
    )
    await world.check()
    _, total = await world.store.member_page(world.rooms[PRIVATE], 0, 100)
    assert total == 1
