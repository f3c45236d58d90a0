"""Owners of a partition on the real database, and a gateway that sends them bodies until they are answered.

The bus is replaced at its seam, `Outlet`, which records answers and deliveries. A failure can strike at every step.
"""

import asyncio
import itertools
import zlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from chat_service.follower.log_follower import LogFollower
from chat_service.follower.position_store import PositionStore
from chat_service.partitions.commit_path import Services
from chat_service.partitions.limits import Limits, Quotas
from chat_service.partitions.owner_store import OwnerStore
from chat_service.partitions.ownership import ReplicaView
from chat_service.partitions.partition import Partition
from chat_service.partitions.rate_limit import RateLimiter
from chat_service.partitions.rates import HOUR_MS, Limit, Rate, RateWindows
from chat_service.partitions.room_cache import RoomStores
from chat_service.people.presence_store import PresenceStore
from chat_service.people.profile_store import ProfileStore
from chat_service.people.profiles import Profiles
from chat_service.rooms.decision import Rules
from chat_service.rooms.entry_deliveries import frame_of
from chat_service.rooms.log import EntryKind, LogEntry, apply
from chat_service.rooms.room import Role, Room
from chat_service.search.index_store import IndexStore
from chat_service.search.indexer import SearchIndexer
from chat_service.storage.group_commit import GroupCommit
from chat_service.storage.group_read import GroupRead
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.recent_read import RecentRead
from chat_service.storage.record_writer import RecordWriter
from chat_service.storage.repair import Repair
from chat_service.storage.room_store import RoomStore
from shared.bus.bus import Bus
from shared.bus.delivery import Delivery, DeliveryKind, room_channel
from shared.bus.topology import PARTITIONS
from shared.commands.body import BodyAnswered, BodyHead, decode_answered
from shared.commands.chat import (
    AddMember,
    CreateRoom,
    DeleteMessage,
    DeleteRoom,
    EditMessage,
    JoinRoom,
    LeaveRoom,
    MarkRead,
    MemberRole,
    PinMessage,
    React,
    RemoveMember,
    SendMessage,
    Sent,
)
from shared.commands.command import Caller, Reply
from shared.encoding import to_json
from shared.errors import StaleOwner, Unavailable
from shared.mongo import Database
from shared.protocol.message_parts import MessageExtras
from shared.protocol.server_frames import UserProfile
from tests.support.message_checks import assert_same_frame, check_present
from tests.support.unread_checks import check_unread

USERS = ("ann", "ben", "cat", "dan")  # ann makes the rooms
PUBLIC, PRIVATE = 0, 1
TTL_MS, TICK_MS = 600_000, 1_000
STEPS_MAX = 30
CHANGED_MESSAGES = 3  # of each room, so that changes meet
WAIT_S = 20.0

T = TypeVar("T")
_examples = itertools.count(1)

# Possible events ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """A future command: `what` on `room` by or on `user`. `is_hasty`: it expires before it is sent again."""

    what: str
    room: int
    user: str
    key: str | None = None
    is_hasty: bool = False


@dataclass(frozen=True)
class Turn:
    """A body of commands, sent until it is answered.

    `fails_at`: the step at which the first owner dies or, without `dies`, loses the database for a moment. `is_late`:
    another gateway has heard of the next owner before, and has sent a message there. `both`: the next owner gets the
    body again while the first one has it.
    """

    acts: tuple[Act, ...]
    fails_at: int | None = None
    dies: bool = True
    is_late: bool = False
    both: bool = False


CREATE_BOTH = (Act("create", PUBLIC, "ann"), Act("create", PRIVATE, "ann"))

# The seams where it happens -------------------------------------------------------------------------------------------


class Fuse:
    """Counts the steps of an owner and fails at one: the owner dies, or the database does not answer it.

    With `freezes_at` the owner stops at that step, with `frozen` set, until `thawed` is set.
    """

    def __init__(self) -> None:
        self.left: int | None = None
        self.dies = True
        self.freezes_at: int | None = None
        self.frozen, self.thawed = asyncio.Event(), asyncio.Event()

    def step(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            raise asyncio.CancelledError if self.dies else Unavailable("no answer")

    async def reach(self) -> None:
        """Freeze or fail if it is time."""
        if self.freezes_at is not None:
            self.freezes_at -= 1
            if self.freezes_at < 0:
                self.freezes_at = None
                self.frozen.set()
                await self.thawed.wait()
        self.step()

    async def around(self, write: Callable[[Sequence[T]], Awaitable[None]], what: Sequence[T]) -> None:
        """Write, with a freeze or failure before, halfway or after."""
        await self.reach()
        try:
            self.step()
        except (asyncio.CancelledError, Unavailable):
            await write(what[: len(what) // 2])
            raise
        await write(what)
        await self.reach()


class FaultyLog(LogStore):
    """The real log, with faults. With `thawed` an insert waits for it: the owner is frozen before its commit."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        super().__init__(database)
        self._fuse = fuse
        self.frozen = asyncio.Event()
        self.thawed: asyncio.Event | None = None

    async def insert(self, entries: Sequence[LogEntry]) -> None:
        if self.thawed is not None:
            self.frozen.set()
            await self.thawed.wait()
        await self._fuse.around(super().insert, entries)

    async def after(self, room_id: str, rev: int) -> list[LogEntry]:
        await self._fuse.reach()
        return await super().after(room_id, rev)


class FaultyRooms(RoomStore):
    """The real store, with faults around its writes."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        super().__init__(database)
        self._fuse = fuse

    async def put_members(self, entries: Collection[LogEntry]) -> None:
        await self._fuse.around(super().put_members, list(entries))

    async def put_rooms(self, rooms: Collection[Room]) -> None:
        await self._fuse.around(super().put_rooms, list(rooms))

    async def mark_active(self, room_ids: Collection[str], at_ms: int) -> None:
        write = super().mark_active
        await self._fuse.around(lambda some: write(some, at_ms), list(room_ids))

    async def put_read_marks(self, marks: dict[tuple[str, str], int]) -> None:
        write = super().put_read_marks
        await self._fuse.around(lambda some: write(dict(some)), list(marks.items()))


class FaultyMessages(MessageStore):
    """The real store, with faults around its writes."""

    def __init__(self, database: Database, fuse: Fuse) -> None:
        super().__init__(database)
        self._fuse = fuse

    async def write_changes(self, entries: Iterable[LogEntry]) -> None:
        await self._fuse.around(super().write_changes, list(entries))


class DeliveryRecorder:
    """The lines that the gateways receive. A dead owner sends nothing."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.replies: dict[str, Reply] = {}
        self.answered: dict[int, asyncio.Future[BodyAnswered]] = {}

    def send(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            match delivery.kind:
                case DeliveryKind.REPLY:
                    reply = msgspec.json.decode(delivery.frame, type=Reply)
                    self.replies.setdefault(reply.id, reply)  # the gateway has passed the first one on
                case DeliveryKind.ANSWERED:
                    end = decode_answered(delivery.frame)
                    if not self.answered[end.number].done():
                        self.answered[end.number].set_result(end)
                case _:
                    self.deliveries.append(delivery)


class FaultyOutlet:
    """The outlet of one owner. A dead owner sends nothing."""

    def __init__(self, recorder: DeliveryRecorder, fuse: Fuse) -> None:
        self.unsent_bytes = 0
        self._recorder = recorder
        self._fuse = fuse

    def send_deliveries(self, deliveries: Sequence[Delivery], queues: Sequence[str] = ()) -> None:
        if self._fuse.dies:
            self._fuse.step()
        self._recorder.send(deliveries)


@dataclass(eq=False)
class ChatOwner:
    """One process that owns the partition, or believes that it does."""

    partition: Partition
    log: FaultyLog
    fuse: Fuse
    outlet: FaultyOutlet
    running: "asyncio.Task[None]"


@dataclass(eq=False)
class CommandBody:
    """Commands that a gateway sends until they are answered."""

    number: int
    sent_at_ms: int
    lines: list[bytes]
    copies: int = 0
    is_contested: bool = False  # two owners had it at once, and either may have answered


# The world ------------------------------------------------------------------------------------------------------------


@dataclass
class ChatWorld:
    """Two rooms of one example, a gateway that sends to their partition, and its owners, the newest last."""

    database: Database
    number: int = field(default_factory=lambda: next(_examples))
    now_ms: int = 1_000_000
    bodies: int = 0
    owners: list[ChatOwner] = field(default_factory=list)
    route: ChatOwner | None = None  # the owner that the gateway knows
    asked: list[str] = field(default_factory=list)
    hasty: set[str] = field(default_factory=set)
    body_of: dict[str, CommandBody] = field(default_factory=dict)  # by command id
    sent: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))  # messages, by room

    def __post_init__(self) -> None:
        self.recorder = DeliveryRecorder()
        self.rooms = tuple(f"room_{self.number}_{index}" for index in (PUBLIC, PRIVATE))
        self.room_log, self.store = LogStore(self.database), RoomStore(self.database)
        self.messages = MessageStore(self.database)
        self._terms = OwnerStore(self.database)
        self.index = IndexStore(self.database)
        self.indexer = SearchIndexer(self.index, self._clock_ms)
        positions = PositionStore(self.database)
        self.follower = LogFollower(self.room_log, self.store, positions, [self.indexer], self._clock_ms)

    async def claim(self) -> ChatOwner:
        """Return a fresh owner of the partition, under the next term."""
        fuse, bus = Fuse(), Bus("amqp://nobody.invalid", "node")
        messages = FaultyMessages(self.database, fuse)
        log, rooms = FaultyLog(self.database, fuse), FaultyRooms(self.database, fuse)
        profiles = Profiles(ProfileStore(self.database), bus, self._clock_ms)
        replicas = ReplicaView("node", "", PARTITIONS, 0)
        hourly = {rate: Limit(10_000, HOUR_MS) for rate in Rate}
        rates = RateLimiter(RateWindows(hourly), bus, replicas, self._clock_ms, self._clock_ms)
        limits = Limits(rates, rooms, hourly, Quotas(10_000, 10_000))
        stores = RoomStores(
            rooms,
            messages,
            log,
            PresenceStore(self.database),
            profiles,
            RecentRead(GroupRead(rooms.active_now), self._clock_ms),
        )
        seen = await self._terms.owner(self.number)
        owned = await self._terms.replace(self.number, seen, "node", f"queue_{seen.term + 1}")
        assert owned is not None
        outlet = FaultyOutlet(self.recorder, fuse)
        records = RecordWriter(rooms, self._clock_ms, lambda _: self.number)
        services = Services(
            stores, GroupCommit(log), records, limits, self.follower, outlet, Rules(), self._clock_ms, self._clock_ms
        )
        partition = Partition(self.number, owned.term, services, self._check_term)
        self.owners.append(ChatOwner(partition, log, fuse, outlet, asyncio.create_task(partition.run())))
        return self.owners[-1]

    def _clock_ms(self) -> int:
        return self.now_ms

    async def _check_term(self, number: int, term: int) -> None:
        if (await self._terms.owner(number)).term > term:
            raise StaleOwner("another owner")

    def command(self, act: Act) -> bytes:
        """Return the line of a new command."""
        id_ = f"cmd_{self.number}_{len(self.asked)}"
        self.asked.append(id_)
        if act.is_hasty:
            self.hasty.add(id_)
        head: dict[str, Any] = {
            "id": id_,
            "expires_at_monotonic_ms": self.now_ms + (TICK_MS + TICK_MS // 2 if act.is_hasty else TTL_MS),
            "caller": Caller(user_id=act.user, profile=UserProfile(first_name=act.user.title())),
            "room_id": self.rooms[act.room],
        }
        by_ann = head | {"caller": Caller(user_id="ann")}
        match act.what:
            case "send":
                self.sent[act.room].append(id_)
                text, extras = f"text of {id_}", None
                if act.user == "ann":
                    extras = MessageExtras(mentions=("ben",), mention_room=act.key == "k1")
                return to_json(
                    SendMessage(**head, message_id=id_, message=text, client_message_id=act.key, extras=extras)
                )
            case "edit" | "erase" | "react" | "unreact" | "pin" | "unpin":
                return to_json(self._change(act, head))
            case "create":
                kind, members = (("public", ()), ("private", ("ben",)))[act.room]
                return to_json(CreateRoom(**by_ann, name="Room", description="", type=kind, member_ids=members))
            case "join":
                return to_json(JoinRoom(**head))
            case "leave":
                return to_json(LeaveRoom(**head))
            case "add":
                return to_json(AddMember(**by_ann, user_id=act.user))
            case "moderator" | "creator":  # by an admin: ann may have handed the room over
                by_admin = head | {"caller": Caller(user_id="root", is_admin=True)}
                role: MemberRole = "moderator" if act.what == "moderator" else "creator"
                return to_json(AddMember(**by_admin, user_id=act.user, role=role))
            case "remove":
                return to_json(RemoveMember(**by_ann, user_id=act.user))
            case "delete":
                return to_json(DeleteRoom(**by_ann))
            case "read":
                return to_json(MarkRead(**head, seq=1))
            case _:
                raise AssertionError(act.what)

    def _change(self, act: Act, head: dict[str, Any]) -> EditMessage | DeleteMessage | React | PinMessage:
        """Return a change of one of the first messages of the room, or of one that never was."""
        of_room = self.sent[act.room][:CHANGED_MESSAGES]
        which = zlib.crc32(f"{act.user}{act.key}".encode()) % CHANGED_MESSAGES
        head |= {"message_id": of_room[which] if which < len(of_room) else "msg_unknown"}
        match act.what:
            case "edit":
                mentions = ("ann", "ben") if act.key == "k1" else () if act.key == "k2" else None
                return EditMessage(**head, message=f"text by edit {head['id']}", mentions=mentions)
            case "erase":
                return DeleteMessage(**head)
            case "react" | "unreact":
                return React(**head, emoji=act.key or "👍", is_removal=act.what == "unreact")
            case _:
                return PinMessage(**head, is_removal=act.what == "unpin")

    def body(self, *acts: Act) -> CommandBody:
        """Return a new body of commands."""
        self.bodies += 1
        self.recorder.answered[self.bodies] = asyncio.get_running_loop().create_future()
        body = CommandBody(self.bodies, self.now_ms, [])
        for act in acts:
            body.lines.append(self.command(act))
            self.body_of[self.asked[-1]] = body
        return body

    def send(self, body: CommandBody, owner: ChatOwner, gateway: str = "gateway") -> None:
        """Send a body to an owner; marked, unless it is the first time."""
        answered = self.recorder.answered[body.number]
        if answered.done():
            self.recorder.answered[body.number] = asyncio.get_running_loop().create_future()
        head = BodyHead(
            gateway=gateway,
            number=body.number,
            partition=self.number,
            term=owner.partition.term,
            reply_to="queue",
            sent_at_monotonic_ms=body.sent_at_ms,
            is_resent=body.copies > 0,
        )
        body.copies += 1
        owner.partition.accept(head, body.lines, self.now_ms - body.sent_at_ms)

    async def answered(self, body: CommandBody, owner: ChatOwner) -> bool:
        """Wait for the answer of an owner. Returns False if the body has to be sent again."""
        answered = self.recorder.answered[body.number]
        waiting: list[asyncio.Future[Any]] = [answered, owner.running]
        done, _ = await asyncio.wait(waiting, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        assert done, "neither an answer nor an end"
        return answered.done() and not answered.result().is_moved

    async def take(self, turn: Turn) -> None:
        """Send a body until it is answered."""
        owner = self.route or await self.claim()
        if turn.is_late:
            early = self.body(Act("send", PUBLIC, "dan"))
            newest = await self.claim()
            self.send(early, newest, gateway="another gateway")
            assert await self.answered(early, newest)
        body = self.body(*turn.acts)
        owner.fuse.left, owner.fuse.dies = turn.fails_at, turn.dies
        self.send(body, owner)
        if turn.both:
            body.is_contested = True
            owner = await self.claim()
            self.now_ms += TICK_MS
            self.send(body, owner)
        while not await self.answered(body, owner):
            self.now_ms += TICK_MS
            owner = self.owners[-1]
            if owner.running.done():
                owner = await self.claim()
            self.send(body, owner)
        self.route = owner
        for each in self.owners:
            each.fuse.left = None

    async def end(self) -> None:
        """End every owner after its current work."""
        for owner in self.owners:
            owner.partition.abandon()
        await asyncio.wait_for(asyncio.gather(*(one.running for one in self.owners), return_exceptions=True), WAIT_S)

    async def check(self) -> dict[str, list[LogEntry]]:
        """Check logs, answers, deliveries and records. Returns the logs."""
        await self.end()
        logs = {room_id: await self.room_log.after(room_id, 0) for room_id in self.rooms}
        for log in logs.values():
            assert [entry.rev for entry in log] == list(range(1, len(log) + 1))
            said = [entry.message for entry in log if entry.message is not None]
            assert [message.seq for message in said] == list(range(1, len(said) + 1))
            keys = [(one.user_id, one.client_message_id) for one in said if one.client_message_id is not None]
            assert len(keys) == len(set(keys))
            bodies = [self.body_of[entry.id].number for entry in log if entry.kind is not EntryKind.VOID]
            assert bodies == sorted(bodies)
        # In a private room a message that was refused may be stored when its body is sent again, after a later one.
        spoken = [self.asked.index(entry.id) for entry in logs[self.rooms[PUBLIC]] if entry.message is not None]
        assert spoken == sorted(spoken)
        self._check_answers(logs)
        self._check_deliveries(logs)
        await check_unread(self.database, self._clock_ms, logs, is_repaired=False)
        touched_since = PositionStore(self.database).touched_since
        await Repair(self.store, self.messages, self.room_log, touched_since, self._clock_ms).run(
            range(PARTITIONS), self.recorder.send
        )
        for room_id, log in logs.items():
            await self._check_record(room_id, log)
            await check_present(self.database, self.messages, log)
        await check_unread(self.database, self._clock_ms, logs, is_repaired=True)
        return logs

    def _check_answers(self, logs: dict[str, list[LogEntry]]) -> None:
        stored = {id_: entry for log in logs.values() for entry in log for id_ in entry.command_ids}
        assert set(self.asked) - self.hasty <= self.recorder.replies.keys() <= set(self.asked)
        for reply in self.recorder.replies.values():
            assert reply.error is None or reply.id not in stored or self.body_of[reply.id].is_contested
            if (ack := ack_in(reply)) is not None:
                message = stored[ack.message.id].message
                assert message is not None
                assert (message.room_id, message.seq) == (ack.message.chatroom_id, ack.message.seq)

    def _check_deliveries(self, logs: dict[str, list[LogEntry]]) -> None:
        """Check that nothing was delivered that is not in the log, and no message was left out."""
        entries = {(room_channel(room_id), entry.rev): entry for room_id, log in logs.items() for entry in log}
        sent = {
            (delivery.channel, delivery.position): delivery.frame
            for delivery in self.recorder.deliveries
            if delivery.kind is DeliveryKind.ORDERED
        }
        for place, frame in sent.items():
            assert_same_frame(frame, frame_of(entries[place]))
        assert {place for place, entry in entries.items() if entry.kind is not EntryKind.VOID} <= sent.keys()

    async def _check_record(self, room_id: str, log: list[LogEntry]) -> None:
        """Check that record and memberships are those that the log leads to."""
        room: Room | None = None
        joined: dict[str, bool] = {}
        for entry in log:
            room = apply(entry, room)
            joined |= {effect.user_id: effect.is_joined for effect in entry.members}
        record = (await self.store.rooms([room_id])).get(room_id)
        assert (record is None) == (room is None)
        if room is None or record is None:
            return
        assert (record.rev, record.last_seq, record.deleted) == (room.rev, room.last_seq, room.deleted)
        members, total = await self.store.member_page(room_id, 0, 100)
        assert {member.user_id for member in members} == {user_id for user_id, is_joined in joined.items() if is_joined}
        assert record.member_count == total == len(members)
        creators = [member.user_id for member in members if member.role is Role.CREATOR]
        assert record.creator_id == room.creator_id
        assert creators == ([room.creator_id] if members else [])
        for member in members:
            own = (entry.last_seq for entry in log if entry.message is not None and entry.author_id == member.user_id)
            assert member.read_seq >= max(own, default=0)


def ack_in(reply: Reply) -> Sent | None:
    """Return the acknowledgement of a message, if a reply is one."""
    if reply.error is not None or b'"repeated"' not in bytes(reply.data):
        return None
    return msgspec.json.decode(reply.data, type=Sent)
