"""Presence by gateway leases, on the real broker and database: gateways' reports in, deliveries to gateways out.

The clock is the test's, so a lease expires when the test says so; only the last test waits for a real one.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY

from chat_service.people import announcement_store, presence_store
from chat_service.people.announcement_store import AnnouncementStore
from chat_service.people.announcer import LEASE_MS, Announcer
from chat_service.people.count_schedule import COUNT_INTERVAL_MS
from chat_service.people.presence import Presence, PresenceTimes
from chat_service.people.presence_record import PresenceRecord
from chat_service.people.presence_store import PresenceStore
from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect
from chat_service.rooms.room import Membership, Room, RoomType
from chat_service.storage import room_store
from chat_service.storage.room_store import RoomStore
from deploy.local.command import CommandLine
from deploy.local.settings import PROJECT
from gateway.backend import Backend
from gateway.commands.router import CommandRouter
from gateway.live.presence import PresencePage, Roster
from shared.bus.batching import split_lines
from shared.bus.bus import Bus
from shared.bus.delivery import Delivery
from shared.bus.topology import CHAT_PRESENCE, DELIVERIES, SHARDS, shard_key
from shared.commands.chat import ReportPresence
from shared.commands.command import GATEWAY
from shared.ids import Prefix, new_id
from shared.mongo import Database, Mongo
from tests.support.limits import HIGH_LIMITS
from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.server_process import ServerProcess
from tests.support.services import chat_service, free_port, gateway_alone, wait_ready
from tests.support.tokens import SECRET
from tests.support.waiting import until

TIMES = PresenceTimes(sweep_interval_s=0.02, silence_ms=0)
NO_GHOSTS_AFTER_S = 30.0
ROOM_MAX = 3
EXPIRES_MS = 60_000


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
    """The real store of an announcer that dies once, in the step of that name."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.dies_in = ""

    async def _die(self, step: str) -> None:
        if self.dies_in == step:
            self.dies_in = ""
            raise PresenceCrash

    async def begin(self, user_ids: Collection[str]) -> None:
        await self._die("begin")
        await super().begin(user_ids)

    async def mark(self, online: Collection[Membership], offline: Collection[Membership]) -> None:
        await self._die("mark")
        await super().mark(online, offline)

    async def finish(self, records: Collection[PresenceRecord]) -> None:
        await self._die("finish")
        await super().finish(records)

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
        """Renew the lease and send the pages that are due. Return whether the lease is known.

        Otherwise the next call begins another.
        """
        renewal = self._command(PresencePage(), begins_lease=not self.is_leased)
        self.is_leased = (await self.backend.report_presence(renewal)).lease_is_known
        while self.is_leased and (page := self.roster.next_page(self.now_s)):
            answer = await self.backend.report_presence(self._command(page))
            self.is_leased = answer.lease_is_known
            if self.is_leased:
                self.roster.confirm(page)
        if not self.is_leased:
            self.node_id = new_id(Prefix.NODE)
            self.roster.lease_lost()
        return self.is_leased

    async def leave(self) -> bool:
        command = self._command(PresencePage(), is_leaving=True)
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

    def _command(self, page: PresencePage, *, begins_lease: bool = False, is_leaving: bool = False) -> ReportPresence:
        return ReportPresence(
            **self.backend.head(GATEWAY),
            node_id=self.node_id,
            came=page.came,
            went=page.went,
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
    announcer: Announcer
    clock: Clock
    announced: list[tuple[str, str, str]] = field(default_factory=list)  # channel, event, user or number online

    def gateway(self) -> ReportingGateway:
        return ReportingGateway(Backend(self.bus, cast(CommandRouter, None)))

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
        await self.store.mark_new_members([(room_id, user) for user in users])
        await self.rooms.put_rooms([room])

    async def expect(self, *announced: tuple[str, str, str]) -> None:
        """Announce what is owed, and check that exactly this was announced since the last check."""
        await self.announcer.announce()
        await self._barrier()
        assert sorted(self.announced) == sorted(announced)
        self.announced.clear()

    async def _barrier(self) -> None:
        """Wait until everything delivered on any shard before this has arrived."""
        marks = [Delivery(f"mark:{number}", _TRANSIENT, 0, "", _mark(number)) for number in range(SHARDS)]
        for number, mark in enumerate(marks):
            self.bus.publish(DELIVERIES, shard_key(number), mark.to_line())
        await until(lambda: sum(event == "mark" for _, event, _ in self.announced) == SHARDS)
        self.announced = [entry for entry in self.announced if entry[1] != "mark"]


_TRANSIENT = Delivery.from_line(b"x\tt\t0\t\t{}").kind


def _mark(number: int) -> bytes:
    return b'{"type":"mark","data":{"userId":"%d"}}' % number


@pytest.fixture
async def world(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[PresenceWorld]:
    mongo = Mongo(mongodb_uri, database_name)
    await mongo.wait_ready({**room_store.INDEXES, **presence_store.INDEXES, **announcement_store.INDEXES})
    clock = Clock()
    bus = Bus(amqp_url, new_id(Prefix.NODE))
    present, announcements = PresenceStore(mongo.database), ForgetfulStore(mongo.database)
    announcer = Announcer(announcements, bus, "sweeper", clock, ROOM_MAX)
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


async def test_user_is_online_while_any_device_is(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben")
    first, second = world.gateway(), world.gateway()
    await first.opened("ann")
    await world.expect(("room:room_1", "user:online", "ann"))
    await second.opened("ann")
    await first.opened("ann")
    await first.closed("ann")
    assert await world.status("ann") == "online"
    await first.closed("ann")
    assert await world.status("ann") == "online"
    await world.expect()
    await second.closed("ann")
    assert await world.status("ann") == "offline"
    await world.expect(("room:room_1", "user:offline", "ann"))


async def test_new_and_known_users_come_and_go_in_one_page(world: PresenceWorld) -> None:
    await world.store.change("other", ["ann", "ben"], [], 1)
    for _ in range(2):
        await world.store.change("here", ["ann", "cat", "dan"], ["ben", "eve"], 2)
    await world.store.change("other", [], ["ann", "ben"], 3)
    found = await world.store.records(["ann", "ben", "cat", "dan", "eve"])
    assert {user for user, record in found.items() if record.is_online} == {"ann", "cat", "dan"}
    assert {user: record.last_seen_at_ms for user, record in found.items() if record.last_seen_at_ms} == {
        "ann": 3,
        "ben": 3,
    }


async def test_duplicate_report_is_announced_once(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    gateway_.roster.opened("ann")
    assert await gateway_.backend.report_presence(gateway_._command(PresencePage(), begins_lease=True))
    page = gateway_.roster.next_page(0.0)
    for _ in range(3):
        command = gateway_._command(page)
        assert (await gateway_.backend.report_presence(command)).lease_is_known
    await world.expect(("room:room_1", "user:online", "ann"))


async def test_rooms_and_direct_partners_are_notified(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben")
    await world.make_room("room_2", "ann")
    await world.make_room("room_3", "ben")
    await world.make_room("room_d", "ann", "cat", direct=("ann", "cat"))
    gateway_ = world.gateway()
    await gateway_.opened("ann", "ben")
    await world.expect(
        ("room:room_1", "user:online", "ann"),
        ("room:room_2", "user:online", "ann"),
        ("user:cat", "user:online", "ann"),
        ("room:room_1", "user:online", "ben"),
        ("room:room_3", "user:online", "ben"),
    )
    rooms = ["room_1", "room_2", "room_3"]
    assert await world.rooms.active_now(rooms) == {"room_1": 2, "room_2": 1, "room_3": 1}
    await gateway_.closed("ann")
    await world.expect(
        ("room:room_1", "user:offline", "ann"),
        ("room:room_2", "user:offline", "ann"),
        ("user:cat", "user:offline", "ann"),
    )
    assert await world.rooms.active_now(rooms) == {"room_1": 1, "room_3": 1}
    await world.make_room("room_4", "ann", "ben")
    assert await world.rooms.active_now(["room_4"]) == {"room_4": 1}


async def test_users_of_dead_gateway_go_offline(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben")
    dead, living = world.gateway(), world.gateway()
    await dead.opened("ann", "ben")
    await living.opened("ben")
    await world.expect(("room:room_1", "user:online", "ann"), ("room:room_1", "user:online", "ben"))
    async with sweeping(world.presence):
        world.clock.pass_ms(TIMES.lease_ms - 1_000)
        assert await living.report()
        world.clock.pass_ms(1_001)
        await eventually(lambda: world.status("ann"), "offline")
    assert await world.status("ben") == "online"
    await world.expect(("room:room_1", "user:offline", "ann"))
    seen = (await world.store.records(["ann"]))["ann"].last_seen_at_ms
    assert seen == world.clock.now_ms


async def test_frozen_gateway_reports_all_users_after_lost_lease(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben")
    gateway_ = world.gateway()
    await gateway_.opened("ann", "ben")
    await world.announcer.announce()
    async with sweeping(world.presence):
        world.clock.pass_ms(TIMES.lease_ms + 1)
        await eventually(lambda: world.status("ann"), "offline")
        await eventually(lambda: world.store.users_of(gateway_.node_id, 500), [])
        await eventually(lambda: _has_lease(world, gateway_), False)
    await world.announcer.announce()
    gateway_.roster.closed("ben", gateway_.now_s - 10.0)
    assert not await gateway_.report()
    assert await gateway_.report()
    assert (await world.status("ann"), await world.status("ben")) == ("online", "offline")
    changes = [("room:room_1", f"user:{status}", user) for status in ("online", "offline") for user in ("ann", "ben")]
    await world.expect(*changes, ("room:room_1", "user:online", "ann"))


async def _has_lease(world: PresenceWorld, gateway_: ReportingGateway) -> bool:
    return await world.store._nodes.find_one({"_id": gateway_.node_id}) is not None


async def test_claimed_lease_cannot_be_renewed(world: PresenceWorld) -> None:
    """Otherwise the gateway would keep a lease while the sweep takes its users offline."""
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    world.clock.pass_ms(TIMES.lease_ms + 1)
    now_ms = world.clock.now_ms
    assert await world.store.claim_expired(now_ms, "dies", now_ms + TIMES.claim_ms) == gateway_.node_id
    assert await world.store.claim_expired(now_ms, "other", now_ms + TIMES.claim_ms) is None
    renewal = gateway_._command(PresencePage())
    for command in (renewal, gateway_._command(PresencePage(went=("ann",)))):
        assert not (await gateway_.backend.report_presence(command)).lease_is_known
    assert not await gateway_.report()
    assert await gateway_.report()  # under another name, so that it does not wait for the sweep
    async with sweeping(world.presence):
        world.clock.pass_ms(TIMES.claim_ms + 1)
        await eventually(lambda: world.store.users_of(renewal.node_id, 500), [])
    assert await world.status("ann") == "online"


async def test_expired_unclaimed_lease_is_renewed(world: PresenceWorld) -> None:
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    world.clock.pass_ms(TIMES.lease_ms + 1)
    assert await gateway_.report()
    now_ms = world.clock.now_ms
    assert await world.store.claim_expired(now_ms, "other", now_ms + TIMES.claim_ms) is None
    assert await world.status("ann") == "online"


async def test_users_of_leaving_gateway_have_grace_period(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben")
    leaving, next_ = world.gateway(), world.gateway()
    await leaving.opened("ann", "ben")
    await world.announcer.announce()
    assert await leaving.leave()
    async with sweeping(world.presence):
        await next_.opened("ann")
        world.clock.pass_ms(TIMES.leaving_grace_ms + 1)
        await eventually(lambda: world.status("ben"), "offline")
    assert await world.status("ann") == "online"
    await world.expect(
        ("room:room_1", "user:online", "ann"),
        ("room:room_1", "user:online", "ben"),
        ("room:room_1", "user:offline", "ben"),
    )


@pytest.mark.parametrize("step", ["begin", "mark", "finish"])
async def test_another_announcer_finishes_after_crash(world: PresenceWorld, step: str) -> None:
    await world.make_room("room_1", "ann")
    await world.gateway().opened("ann")
    world.announcements.dies_in = step
    with pytest.raises(PresenceCrash):
        await world.announcer.announce()
    other = Announcer(world.announcements, world.bus, "other", world.clock, ROOM_MAX)
    assert await other.announce() == 0  # the lease of the dead one is valid
    world.clock.pass_ms(LEASE_MS + 1)
    assert await other.announce() == 1
    repeated = [("room:room_1", "user:online", "ann")] * (2 if step == "finish" else 1)
    await world.expect(*repeated)
    assert await world.rooms.active_now(["room_1"]) == {"room_1": 1}


@pytest.mark.parametrize("step", ["mark", "finish"])
async def test_user_who_leaves_after_a_crash_is_announced_offline(world: PresenceWorld, step: str) -> None:
    """Rooms may have heard that they are online, although the crash prevented a note of it."""
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    world.announcements.dies_in = step
    with pytest.raises(PresenceCrash):
        await world.announcer.announce()
    await gateway_.closed("ann")
    heard = [("room:room_1", "user:online", "ann")] if step == "finish" else []
    await world.expect(*heard, ("room:room_1", "user:offline", "ann"))
    assert await world.rooms.active_now(["room_1"]) == {}


async def test_user_who_leaves_during_their_announcement_is_announced_offline(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    finish = world.announcements.finish
    records = await world.announcements.unannounced(500)
    await world.announcer.announce()
    await gateway_.closed("ann")
    await finish(records)  # as if the departure had been written before
    await world.expect(("room:room_1", "user:online", "ann"), ("room:room_1", "user:offline", "ann"))


async def test_another_sweeper_continues_after_crash(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben")
    gateway_ = world.gateway()
    await gateway_.opened("ann", "ben")
    await world.expect(("room:room_1", "user:online", "ann"), ("room:room_1", "user:online", "ben"))
    world.clock.pass_ms(TIMES.lease_ms + 1)
    now_ms = world.clock.now_ms
    assert await world.store.claim_expired(now_ms, "dies", now_ms + TIMES.claim_ms) == gateway_.node_id
    await world.store.change(gateway_.node_id, [], ["ann"], now_ms)  # its first page
    async with sweeping(world.presence):
        world.clock.pass_ms(TIMES.claim_ms + 1)
        await eventually(lambda: _has_lease(world, gateway_), False)
    await world.expect(("room:room_1", "user:offline", "ann"), ("room:room_1", "user:offline", "ben"))
    assert (await world.store.records(["ann"]))["ann"].last_seen_at_ms == now_ms


async def test_online_and_offline_within_one_announcement_cancel_out(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    await gateway_.closed("ann")
    await world.expect()
    assert await world.announcements.unannounced(500) == []


async def test_page_written_after_the_end_of_its_lease_leaves_nothing(world: PresenceWorld) -> None:
    """The process stood still within a write, and meanwhile the gateway was swept as dead."""
    gateway_ = world.gateway()
    assert await gateway_.report()
    change = world.store.change

    async def change_late(lease: str, came: Collection[str], went: Collection[str], now_ms: int) -> None:
        world.store.change = change  # type: ignore[method-assign]
        world.clock.pass_ms(TIMES.lease_ms + 1)
        await world.presence.sweep_once()
        await change(lease, came, went, now_ms)

    world.store.change = change_late  # type: ignore[method-assign]
    gateway_.roster.opened("ann")
    assert not await gateway_.report()
    assert await world.status("ann") == "offline"
    assert await gateway_.report()
    assert await world.status("ann") == "online"


async def test_large_room_receives_the_number_online_at_most_every_5_s(world: PresenceWorld) -> None:
    members = ("ann", "ben", "cat", "dan")
    await world.make_room("room_1", *members)
    await world.make_room("room_2", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    await world.expect(("room:room_1", "room:presence", "1"), ("room:room_2", "user:online", "ann"))
    await gateway_.opened("ben", "cat")
    await gateway_.opened("dan")
    await world.expect()
    world.clock.pass_ms(4_999)
    await world.expect()
    world.clock.pass_ms(1)
    await world.expect(("room:room_1", "room:presence", "4"))
    world.clock.pass_ms(60_000)
    await world.expect()


async def test_owed_count_is_sent_by_another_announcer_after_crash(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben", "cat", "dan")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    await world.expect(("room:room_1", "room:presence", "1"))
    await gateway_.opened("ben")
    await world.expect()
    world.clock.pass_ms(COUNT_INTERVAL_MS)
    world.announcements.dies_in = "counts_sent"
    with pytest.raises(PresenceCrash):
        await world.announcer.announce()
    world.clock.pass_ms(LEASE_MS + 1)
    other = Announcer(world.announcements, world.bus, "other", world.clock, ROOM_MAX)
    await other.announce()
    await world.expect(*[("room:room_1", "room:presence", "2")] * 2)
    await other.announce()
    await world.expect()


async def test_storm_costs_at_most_two_database_calls_a_hundred_users(world: PresenceWorld) -> None:
    users = [f"user_{number}" for number in range(2_000)]
    await world.make_room("room_1", *users)
    gateway_ = world.gateway()
    for change, online in ((gateway_.opened, 2_000), (gateway_.closed, 0)):
        before = _database_calls()
        await change(*users)
        await world.announcer.announce()
        world.clock.pass_ms(5_000)
        await world.announcer.announce()
        assert _database_calls() - before <= len(users) / 50
        await until(lambda: ("room:room_1", "room:presence", str(online)) in world.announced)  # noqa: B023
        world.announced.clear()


def _database_calls() -> float:
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name == "mongo_seconds_count")


async def test_user_of_very_many_rooms_is_announced_in_all(world: PresenceWorld, monkeypatch: Any) -> None:
    monkeypatch.setattr("chat_service.people.announcer.MEMBERSHIPS_MAX", 3)
    rooms = [f"room_{number}" for number in range(8)]
    for room_id in rooms:
        await world.make_room(room_id, "ann", "ben")
    await world.gateway().opened("ann", "ben", "cat")
    await world.expect(*((f"room:{room}", "user:online", user) for room in rooms for user in ("ann", "ben")))
    assert await world.rooms.active_now(rooms) == dict.fromkeys(rooms, 2)


async def test_concurrent_sweeps_announce_each_change_once(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben")
    gateways = [world.gateway() for _ in range(4)]
    for number, one in enumerate(gateways):
        await one.opened(("ann", "ben")[number % 2])
    await world.expect(("room:room_1", "user:online", "ann"), ("room:room_1", "user:online", "ben"))
    other = Presence(world.store, world.bus, "other", world.clock, TIMES, world.announcer.wake)
    async with sweeping(world.presence), sweeping(other):
        world.clock.pass_ms(TIMES.lease_ms + 1)
        for one in gateways:
            await eventually(partial(_has_lease, world, one), False)
    await world.expect(("room:room_1", "user:offline", "ann"), ("room:room_1", "user:offline", "ben"))


# Real processes -----------------------------------------------------------------------------------------------------


class ReporterProcess:
    """A gateway that can be killed and frozen."""

    def __init__(self, amqp_url: str, directory: Path, name: str) -> None:
        self.port, self.admin_port = free_port(), free_port()
        environment = {
            **HIGH_LIMITS,
            "PATH": os.environ["PATH"],
            "AMQP_URL": amqp_url,
            "JWT_SECRET": SECRET,
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "ADMIN_PORT": str(self.admin_port),
        }
        command = CommandLine((sys.executable, "-m", "gateway"), environment, PROJECT)
        self.process = ServerProcess(command, directory / f"{name}.out")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ReporterProcess"]:
        self.process.start()
        try:
            await wait_ready(self.admin_port)
            yield self
        finally:
            self.process.kill()


async def test_killed_and_frozen_gateways_leave_no_ghosts(
    amqp_url: str, mongodb_uri: str, database_name: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(chat_service(amqp_url, mongodb_uri, database_name))
        here = await stack.enter_async_context(gateway_alone(amqp_url))
        killed, frozen = [
            await stack.enter_async_context(ReporterProcess(amqp_url, tmp_path, name).running())
            for name in ("killed", "frozen")
        ]
        room = await RestClient(here, "ann").create_room()
        for user in ("ben", "cat"):
            await RestClient(here, user).data("POST", f"/v1/chatrooms/{room}/join")
        ann = await stack.enter_async_context(await LiveClient.as_user(here, "ann"))
        await ann.ask("subscribe", channel="chatroom", chatroomId=room)
        for user, process in (("ben", killed), ("cat", frozen)):
            await stack.enter_async_context(await LiveClient.as_user(process.url, user))
            await ann.take(_is("user:online", user))
        struck_s = time.monotonic()
        killed.process.kill()
        frozen.process.signal(signal.SIGSTOP)
        for user in ("ben", "cat"):
            await ann.take(_is("user:offline", user), timeout_s=NO_GHOSTS_AFTER_S - (time.monotonic() - struck_s))
        assert (await RestClient(here, "ann").data("GET", f"/v1/chatrooms/{room}"))["activeNow"] == 1
        frozen.process.signal(signal.SIGCONT)
        await ann.take(_is("user:online", "cat"))
        assert (await RestClient(here, "ann").data("GET", "/v1/users/cat/presence"))["status"] == "online"
        changes = [frame for frame in ann.frames if frame["type"] in ("user:online", "user:offline")]
        assert [frame["data"]["userId"] for frame in changes] in ([], ["ann"])


async def test_count_of_large_room_reaches_its_subscribers_alone(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(chat_service(amqp_url, mongodb_uri, database_name, presence_room_max=2))
        url = await stack.enter_async_context(gateway_alone(amqp_url))
        room = await RestClient(url, "ann").create_room(type="private", memberIds=["ben", "cat"])
        ann, ben, dan = [
            await stack.enter_async_context(await LiveClient.as_user(url, user)) for user in ("ann", "ben", "dan")
        ]
        await ann.ask("subscribe", channel="chatroom", chatroomId=room)
        assert (await dan.ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "error"
        await stack.enter_async_context(await LiveClient.as_user(url, "cat"))
        full = await ann.take(
            lambda frame: frame["type"] == "room:presence" and frame["data"] == {"chatroomId": room, "activeNow": 3}
        )
        assert full["data"]["chatroomId"] == room
        assert (await RestClient(url, "ann").data("GET", f"/v1/chatrooms/{room}"))["activeNow"] == 3
        await ben.ask("ping")
        await dan.ask("ping")
        presence = {"room:presence", "user:online", "user:offline"}
        assert not [frame for client in (ben, dan) for frame in client.frames if frame["type"] in presence]
        assert not [frame for frame in ann.frames if frame["type"].startswith("user:")]


def _is(event: str, user: str) -> Callable[[Frame], bool]:
    return lambda frame: bool(frame["type"] == event and frame["data"]["userId"] == user)


async def test_users_stay_longer_when_no_gateway_reports(world: PresenceWorld) -> None:
    """The reports may be stuck, and then all gateways would seem dead at once."""
    times = PresenceTimes()
    presence = Presence(world.store, world.bus, "patient", world.clock, times, world.announcer.wake)
    first, second = world.gateway(), world.gateway()
    await first.opened("ann")
    await second.opened("ben")
    world.clock.pass_ms(times.lease_ms + 1)
    await presence.sweep_once()
    assert (await world.status("ann"), await world.status("ben")) == ("online", "online")
    assert await second.report()
    await presence.sweep_once()
    assert (await world.status("ann"), await world.status("ben")) == ("offline", "online")
    world.clock.pass_ms(times.lease_ms + times.silence_ms + 1)
    await presence.sweep_once()
    assert await world.status("ben") == "offline"
