"""Presence by gateway leases, on the real broker and database: gateways' reports in, deliveries to gateways out.

The clock is the test's, so a lease expires when the test says so; only the last test waits for a real one.
"""

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from chat_service.people.presence import Presence, PresenceTimes
from deploy.local.command import CommandLine
from deploy.local.settings import PROJECT
from gateway.live.presence import PresenceBatch
from shared.bus.consumer import Line
from shared.encoding import to_json
from tests.support.limits import HIGH_LIMITS
from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.presence_world import TIMES, PresenceWorld, ReportingGateway, eventually, presence_world, sweeping
from tests.support.server_process import ServerProcess
from tests.support.services import chat_service, free_port, gateway_alone, wait_ready
from tests.support.tokens import SECRET

NO_GHOSTS_AFTER_S = 30.0


@pytest.fixture
async def world(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[PresenceWorld]:
    async with presence_world(amqp_url, mongodb_uri, database_name) as made:
        yield made


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


async def test_new_and_known_users_come_and_go_in_one_batch(world: PresenceWorld) -> None:
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
    assert await gateway_.backend.report_presence(gateway_._command(PresenceBatch(), begins_lease=True))
    batch = gateway_.roster.next_batch(0.0)
    for _ in range(3):
        command = gateway_._command(batch)
        assert (await gateway_.backend.report_presence(command)).lease_is_known
    await world.expect(("room:room_1", "user:online", "ann"))


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
    return await world.store._nodes.find_one({"_id": gateway_.node_id, "kind": "gateway"}) is not None


async def test_claimed_lease_cannot_be_renewed(world: PresenceWorld) -> None:
    """Otherwise the gateway would keep a lease while the sweep takes its users offline."""
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    world.clock.pass_ms(TIMES.lease_ms + 1)
    now_ms = world.clock.now_ms
    assert await world.store.claim_expired(now_ms, "dies", now_ms + TIMES.claim_ms) == gateway_.node_id
    assert await world.store.claim_expired(now_ms, "other", now_ms + TIMES.claim_ms) is None
    renewal = gateway_._command(PresenceBatch())
    for command in (renewal, gateway_._command(PresenceBatch(went=("ann",)))):
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


async def test_another_sweeper_continues_after_crash(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben")
    gateway_ = world.gateway()
    await gateway_.opened("ann", "ben")
    await world.expect(("room:room_1", "user:online", "ann"), ("room:room_1", "user:online", "ben"))
    world.clock.pass_ms(TIMES.lease_ms + 1)
    now_ms = world.clock.now_ms
    assert await world.store.claim_expired(now_ms, "dies", now_ms + TIMES.claim_ms) == gateway_.node_id
    await world.store.change(gateway_.node_id, [], ["ann"], now_ms)  # its first batch
    async with sweeping(world.presence):
        world.clock.pass_ms(TIMES.claim_ms + 1)
        await eventually(lambda: _has_lease(world, gateway_), False)
    await world.expect(("room:room_1", "user:offline", "ann"), ("room:room_1", "user:offline", "ben"))
    assert (await world.store.records(["ann"]))["ann"].last_seen_at_ms == now_ms


async def test_batch_written_after_the_end_of_its_lease_leaves_nothing(world: PresenceWorld) -> None:
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


async def test_batch_written_after_the_sweep_by_a_killed_process_is_swept(world: PresenceWorld) -> None:
    gateway_ = world.gateway()
    assert await gateway_.report()
    world.clock.pass_ms(TIMES.lease_ms + 1)
    await world.presence.sweep_once()
    await world.store.change(gateway_.node_id, ["ann"], [], world.clock())
    assert not await gateway_.report()
    assert await world.status("ann") == "online"
    world.clock.pass_ms(TIMES.last_sweep_ms + 1)
    await world.presence.sweep_once()
    assert await world.status("ann") == "offline"
    assert await world.store._nodes.count_documents({"kind": {"$ne": "announcer"}}) == 0


async def test_gateway_of_an_earlier_version_begins_its_swept_lease_again(world: PresenceWorld) -> None:
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    world.clock.pass_ms(TIMES.lease_ms + 1)
    await world.presence.sweep_once()
    batch = gateway_._command(PresenceBatch(came=("ann",)), begins_lease=True)
    assert (await gateway_.backend.report_presence(batch)).lease_is_known
    world.clock.pass_ms(TIMES.lease_ms - 1)
    await world.presence.sweep_once()
    assert await world.status("ann") == "online"
    world.clock.pass_ms(2)
    await world.presence.sweep_once()
    assert await world.status("ann") == "offline"


async def test_rest_of_a_batch_is_not_written_after_a_standstill(world: PresenceWorld) -> None:
    """Another consumer may have written later batches of these gateways."""
    gateways = [world.gateway(), world.gateway()]
    for one in gateways:
        assert await one.report()
    change = world.store.change

    async def change_slowly(lease: str, came: Collection[str], went: Collection[str], now_ms: int) -> None:
        await change(lease, came, went, now_ms)
        world.clock.pass_ms(TIMES.batch_ms)

    world.store.change = change_slowly  # type: ignore[method-assign]
    batches = [one._command(PresenceBatch(came=(user,))) for one, user in zip(gateways, ("ann", "ben"), strict=True)]
    await world.presence.handle([Line(to_json(batch), "nowhere", "", False) for batch in batches])
    assert (await world.status("ann"), await world.status("ben")) == ("online", "offline")


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
