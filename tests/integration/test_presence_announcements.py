"""Announcements of presence on the real broker and database: recipients, frequency, and crashes at each step."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import REGISTRY

from chat_service.people.announcer import LEASE_MS, PresenceAnnouncer
from chat_service.people.count_schedule import COUNT_INTERVAL_MS
from shared.errors import Unavailable
from tests.support.presence_world import ROOM_MAX, PresenceCrash, PresenceWorld, presence_world
from tests.support.waiting import until


@pytest.fixture
async def world(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[PresenceWorld]:
    async with presence_world(amqp_url, mongodb_uri, database_name) as made:
        yield made


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


@pytest.mark.parametrize("step", ["begin", "flag", "finish"])
async def test_another_announcer_finishes_after_crash(world: PresenceWorld, step: str) -> None:
    await world.make_room("room_1", "ann")
    await world.gateway().opened("ann")
    world.announcements.dies_in = step
    with pytest.raises(PresenceCrash):
        await world.announcer.announce()
    other = PresenceAnnouncer(world.announcements, world.bus, "other", world.clock, ROOM_MAX)
    assert await other.announce() == 0  # the lease of the dead one is valid
    world.clock.pass_ms(LEASE_MS + 1)
    assert await other.announce() == 1
    repeated = [("room:room_1", "user:online", "ann")] * (2 if step == "finish" else 1)
    await world.expect(*repeated)
    assert await world.rooms.active_now(["room_1"]) == {"room_1": 1}


@pytest.mark.parametrize("step", ["flag", "finish"])
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


@pytest.mark.parametrize("step", ["flag", "finish"])
async def test_user_who_leaves_after_a_crash_is_announced_offline_by_another_announcer(
    world: PresenceWorld, step: str
) -> None:
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    world.announcements.dies_in = step
    with pytest.raises(PresenceCrash):
        await world.announcer.announce()
    await gateway_.closed("ann")
    world.clock.pass_ms(LEASE_MS + 1)
    other = PresenceAnnouncer(world.announcements, world.bus, "other", world.clock, ROOM_MAX)
    await other.announce()
    await other.announce()
    await world.barrier()
    heard = [("room:room_1", "user:online", "ann")] if step == "finish" else []
    assert world.announced == [*heard, ("room:room_1", "user:offline", "ann")]
    assert await world.rooms.active_now(["room_1"]) == {}


async def test_user_who_leaves_during_their_announcement_is_announced_offline(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    finish = world.announcements.finish
    records = await world.announcements.unannounced(500)
    await world.announcer.announce()
    await gateway_.closed("ann")
    await finish(records, world.clock())  # as if the departure had been written before
    await world.expect(("room:room_1", "user:online", "ann"), ("room:room_1", "user:offline", "ann"))


async def test_online_and_offline_within_one_announcement_cancel_out(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    await gateway_.closed("ann")
    await world.expect()
    assert await world.announcements.unannounced(500) == []


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


async def test_pending_count_is_sent_by_another_announcer_after_crash(world: PresenceWorld) -> None:
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
    other = PresenceAnnouncer(world.announcements, world.bus, "other", world.clock, ROOM_MAX)
    await other.announce()
    await world.expect(*[("room:room_1", "room:presence", "2")] * 2)
    await other.announce()
    await world.expect()


@pytest.mark.parametrize("step", ["begin", "flag", "finish"])
async def test_announcer_that_stood_still_leaves_no_older_state(world: PresenceWorld, step: str) -> None:
    await world.make_room("room_1", "ann")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    world.announcements.freezes_in = step
    frozen = asyncio.create_task(world.announcer.announce())
    await world.announcements.is_frozen.wait()
    await gateway_.closed("ann")
    world.clock.pass_ms(LEASE_MS + 1)
    other = PresenceAnnouncer(world.announcements, world.bus, "other", world.clock, ROOM_MAX)
    await other.announce()
    world.announcements.thaw.set()
    await asyncio.gather(frozen, return_exceptions=True)
    await other.announce()
    await world.barrier()
    heard = [] if step == "begin" else [("room:room_1", "user:offline", "ann")]  # the last of all
    assert world.announced[-1:] == heard
    assert await world.rooms.active_now(["room_1"]) == {}


async def test_pending_count_is_sent_after_the_database_failed(world: PresenceWorld) -> None:
    await world.make_room("room_1", "ann", "ben", "cat", "dan")
    gateway_ = world.gateway()
    await gateway_.opened("ann")
    await world.expect(("room:room_1", "room:presence", "1"))
    await gateway_.opened("ben")
    await world.expect()
    for step in ("active_now", "pending_counts"):
        world.clock.pass_ms(COUNT_INTERVAL_MS)
        world.announcements.fails_in = step
        with pytest.raises(Unavailable):
            await world.announcer.announce()
    await world.expect(("room:room_1", "room:presence", "2"))
    assert not await world.announcements.has_pending(world.clock() + 1)


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
