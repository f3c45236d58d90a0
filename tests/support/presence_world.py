"""Presence as chat_service runs it, with gateways' reports in, deliveries out, and a clock of the test's."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from chat_service.people import announcement_store, presence_store
from chat_service.people.announcement_store import AnnouncementStore
from chat_service.people.announcer import PresenceAnnouncer
from chat_service.people.presence import Presence, PresenceTimes
from chat_service.people.presence_record import PresenceRecord
from chat_service.people.presence_store import PresenceStore
from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect
from chat_service.rooms.room import Membership, Room, RoomType
from chat_service.storage import room_store
from chat_service.storage.room_store import RoomStore
from gateway.backend import Backend
from gateway.commands.router import CommandRouter
from gateway.live.presence import PresenceBatch, Roster
from shared.bus.batching import split_lines
from shared.bus.bus import Bus
from shared.bus.delivery import Delivery
from shared.bus.topology import CHAT_PRESENCE, DELIVERIES, SHARDS, shard_key
from shared.commands.chat_queries import ReportPresence
from shared.commands.command import GATEWAY
from shared.errors import Unavailable
from shared.ids import Prefix, new_id
from shared.mongo import Database, Mongo
from tests.support.waiting import until

TIMES = PresenceTimes(sweep_interval_s=0.02, silence_ms=0)
ROOM_MAX = 3


class PresenceCrash(Exception):
    """The process is gone."""


class Clock:
    """The test's clock."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms

    def pass_ms(self, ms: int) -> None:
        self.now_ms += ms


class ForgetfulStore(AnnouncementStore):
    """The real store of an announcer that dies, fails or freezes once, in the step of that name."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.dies_in = ""
        self.fails_in = ""
        self.freezes_in = ""
        self.is_frozen = asyncio.Event()
        self.thaw = asyncio.Event()

    async def _die(self, step: str) -> None:
        if self.dies_in == step:
            self.dies_in = ""
            raise PresenceCrash
        if self.fails_in == step:
            self.fails_in = ""
            raise Unavailable("the test's failure")
        if self.freezes_in == step:
            self.freezes_in = ""
            self.is_frozen.set()
            await self.thaw.wait()

    async def begin(self, holder: str, user_ids: Collection[str]) -> bool:
        await self._die("begin")
        return await super().begin(holder, user_ids)

    async def set_flags(self, online: Collection[Membership], offline: Collection[Membership]) -> None:
        await self._die("flag")
        await super().set_flags(online, offline)

    async def finish(self, records: Collection[PresenceRecord], now_ms: int) -> None:
        await self._die("finish")
        await super().finish(records, now_ms)

    async def pending_counts(self) -> dict[str, int]:
        await self._die("pending_counts")
        return await super().pending_counts()

    async def active_now(self, room_ids: Collection[str]) -> dict[str, int]:
        await self._die("active_now")
        return await super().active_now(room_ids)

    async def counts_sent(self, room_ids: Collection[str]) -> None:
        await self._die("counts_sent")
        await super().counts_sent(room_ids)


@dataclass
class ReportingGateway:
    """A gateway's presence reports, made by its own roster and sent when the test says so."""

    backend: Backend
    node_id: str = field(default_factory=lambda: new_id(Prefix.NODE))
    roster: Roster = field(default_factory=Roster)
    now_s: float = 0.0
    is_leased: bool = False

    async def report(self) -> bool:
        """Renew the lease and send the batches that are due. Return whether the lease is known.

        Otherwise the next call begins another.
        """
        renewal = self._command(PresenceBatch(), begins_lease=not self.is_leased)
        self.is_leased = (await self.backend.report_presence(renewal)).lease_is_known
        while self.is_leased and (batch := self.roster.next_batch(self.now_s)):
            answer = await self.backend.report_presence(self._command(batch))
            self.is_leased = answer.lease_is_known
            if self.is_leased:
                self.roster.confirm(batch)
        if not self.is_leased:
            self.node_id = new_id(Prefix.NODE)
            self.roster.lease_lost()
        return self.is_leased

    async def leave(self) -> bool:
        command = self._command(PresenceBatch(), is_leaving=True)
        return (await self.backend.report_presence(command)).lease_is_known

    async def opened(self, *users: str) -> None:
        for user in users:
            self.roster.opened(user)
        assert await self.report()

    async def closed(self, *users: str) -> None:
        """Close a socket of each user, and let the grace period pass."""
        for user in users:
            self.roster.closed(user, self.now_s)
        self.now_s += 5.0
        assert await self.report()

    def _command(self, batch: PresenceBatch, *, begins_lease: bool = False, is_leaving: bool = False) -> ReportPresence:
        return ReportPresence(
            **self.backend.request_fields(GATEWAY),
            node_id=self.node_id,
            came=batch.came,
            went=batch.went,
            begins_lease=begins_lease,
            is_leaving=is_leaving,
        )


@dataclass
class PresenceWorld:
    """Presence as chat_service runs it, and the deliveries to gateways."""

    bus: Bus
    rooms: RoomStore
    store: PresenceStore
    announcements: ForgetfulStore
    presence: Presence
    announcer: PresenceAnnouncer
    clock: Clock
    announced: list[tuple[str, str, str]] = field(default_factory=list)  # channel, event, user or number online

    def gateway(self) -> ReportingGateway:
        return ReportingGateway(Backend(self.bus, cast(CommandRouter, None), asyncio.create_task))

    def record(self, body: bytes) -> None:
        for line in split_lines(body):
            delivery = Delivery.from_line(line)
            frame = json.loads(delivery.frame)
            subject = str(frame["data"].get("userId", frame["data"].get("activeNow")))
            self.announced.append((delivery.channel, frame["type"], subject))

    async def status(self, user: str) -> str:
        return (await self.presence.state((user,))).users[0].status

    async def make_room(self, room_id: str, *users: str, direct: tuple[str, str] | None = None) -> None:
        kind = RoomType.PUBLIC if direct is None else RoomType.PRIVATE
        room = Room(
            id=room_id,
            name=room_id,
            description="",
            type=kind,
            created_by=users[0],
            creator_id=users[0],
            created_at_ms=1,
            active_at_ms=1,
            direct=direct,
            member_count=len(users),
            rev=1,
        )
        effects = tuple(MemberEffect(user_id=user, is_joined=True, joined_at_ms=1) for user in users)
        entry = LogEntry(
            id=f"cmd_{room_id}",
            room_id=room_id,
            rev=1,
            kind=EntryKind.CREATED,
            term=1,
            author_id=users[0],
            at_ms=1,
            last_seq=0,
            member_count=len(users),
            members=effects,
        )
        await self.rooms.put_members([entry])
        await self.store.flag_new_members({(room_id, user): False for user in users})
        await self.rooms.put_rooms([room])

    async def expect(self, *announced: tuple[str, str, str]) -> None:
        """Announce pending changes, and check that exactly this was announced since the last check."""
        await self.announcer.announce()
        await self.barrier()
        assert sorted(self.announced) == sorted(announced)
        self.announced.clear()

    async def barrier(self) -> None:
        """Wait until everything delivered on any shard before this has arrived."""
        marks = [Delivery(f"mark:{number}", _TRANSIENT, 0, "", _mark(number)) for number in range(SHARDS)]
        for number, mark in enumerate(marks):
            self.bus.publish(DELIVERIES, shard_key(number), mark.to_line())
        await until(lambda: sum(event == "mark" for _, event, _ in self.announced) == SHARDS)
        self.announced = [entry for entry in self.announced if entry[1] != "mark"]


_TRANSIENT = Delivery.from_line(b"x\tt\t0\t\t{}").kind


def _mark(number: int) -> bytes:
    return b'{"type":"mark","data":{"userId":"%d"}}' % number


@asynccontextmanager
async def presence_world(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[PresenceWorld]:
    """Run presence on this broker and database until the end of the block."""
    mongo = Mongo(mongodb_uri, database_name)
    await mongo.wait_ready({**room_store.INDEXES, **presence_store.INDEXES, **announcement_store.INDEXES})
    clock = Clock()
    bus = Bus(amqp_url, new_id(Prefix.NODE))
    present, announcements = PresenceStore(mongo.database), ForgetfulStore(mongo.database)
    announcer = PresenceAnnouncer(announcements, bus, "sweeper", clock, ROOM_MAX)
    presence = Presence(present, bus, "sweeper", clock, TIMES, announcer.wake)
    made = PresenceWorld(bus, RoomStore(mongo.database), present, announcements, presence, announcer, clock)
    queue = bus.private_queue("test", made.record)
    queue.bindings.update((DELIVERIES, shard_key(number)) for number in range(SHARDS))
    async with bus:
        await bus.wait_connected()
        await bus.consume(CHAT_PRESENCE, presence.handle)
        yield made
    mongo.close()


@asynccontextmanager
async def sweeping(presence: Presence) -> AsyncIterator[None]:
    """Run the sweep until the end of the block."""
    task = asyncio.create_task(presence.sweep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(check: Callable[[], Any], wanted: object, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while await check() != wanted:  # noqa: ASYNC110 - the condition is in a database
            await asyncio.sleep(0.02)
