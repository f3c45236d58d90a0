"""notifier killed, restarted, doubled, and without broker or database: nothing is lost or delivered twice."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest

from shared.bus.consumer import TRIES_MAX
from shared.bus.delivery import CONTROL_CHANNEL, community_channel, inbox_channel
from shared.commands.notifier import (
    AlertDirection,
    AlertView,
    CreateAlert,
    InboxHead,
    ListNotifications,
    NotificationPage,
    OpenInbox,
)
from shared.ids import Prefix, new_id
from tests.support.database_proxy import RefuseCommand, database_proxy
from tests.support.infrastructure import Infrastructure
from tests.support.notifications import NotifierClient, notifier_client
from tests.support.service_process import Process, service_processes
from tests.support.services import notifier
from tests.support.waiting import until

USERS = ("ann", "bob", "cid")


@pytest.fixture
async def client(amqp_url: str) -> AsyncIterator[NotifierClient]:
    async with notifier_client(amqp_url) as client:
        yield client


async def create(client: NotifierClient, user: str, symbol: str) -> None:
    alert: dict[str, Any] = {
        "alert_id": new_id(Prefix.ALERT),
        "symbol": symbol,
        "direction": AlertDirection.ABOVE,
        "price": 2.0,
    }
    await client.ask(user, CreateAlert, AlertView, **alert)


def assert_lossless(client: NotifierClient, user: str, titles: list[str]) -> None:
    """Check that seqs start at 1 without gaps, that duplicates are equal, and that each title is there once."""
    by_seq: dict[int, bytes] = {}
    for delivery in client.inbox(user):
        assert by_seq.setdefault(delivery.position, delivery.frame) == delivery.frame
    assert sorted(by_seq) == list(range(1, len(titles) + 1))
    assert sorted(client.titles(user)) == sorted(titles)


def _has_all(client: NotifierClient, user: str, titles: list[str]) -> bool:
    return set(client.titles(user)) == set(titles)


@asynccontextmanager
async def notifiers(amqp_url: str, mongodb_uri: str, database: str, count: int = 1) -> AsyncIterator[list[Process]]:
    """Replicas, all ready."""
    environment = {"AMQP_URL": amqp_url, "MONGODB_URI": mongodb_uri, "MONGODB_DATABASE": database}
    async with service_processes("notifier", *[environment] * count) as processes:
        for process in processes:
            await process.ready()
        yield processes


async def test_events_during_downtime_are_delivered_after_start(
    client: NotifierClient, amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with notifier(amqp_url, mongodb_uri, database_name):
        await client.notify("ann", "before")
        await until(client.has(inbox_channel("ann"), 1))
    await client.notify("ann", "meanwhile")
    await client.publish("post.created", {"communityId": "c"})
    async with notifier(amqp_url, mongodb_uri, database_name):
        await until(client.has(inbox_channel("ann"), 2))
        await until(client.has(community_channel("c"), 1))
        assert (await client.ask("ann", OpenInbox, InboxHead, since=0)).seq == 2
    assert_lossless(client, "ann", ["before", "meanwhile"])


async def test_events_wait_while_database_refuses_writes(
    client: NotifierClient, amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    """No input can cause the error, so no event becomes a dead letter, however long it lasts."""
    titles = [f"margin call {number}" for number in range(20)]
    async with (
        database_proxy(mongodb_uri) as proxy,
        notifier(amqp_url, proxy.uri, database_name),
    ):
        refused = proxy.inject(RefuseCommand(14031, "OutOfDiskSpace"), "insert", "update", "findAndModify")
        for title in titles:
            await client.notify("ann", title)
        for refusal in (RefuseCommand(13, "Unauthorized"), RefuseCommand(1, "InternalError")):
            await refused.hit(TRIES_MAX // 3 + 1, timeout_s=20)
            refused.remove()
            refused = proxy.inject(refusal, "insert", "update", "findAndModify")
        await refused.hit(TRIES_MAX // 3 + 1, timeout_s=20)
        assert await client.dead_letters() == []
        refused.remove()
        await until(partial(_has_all, client, "ann", titles), timeout_s=20)
    assert_lossless(client, "ann", titles)
    assert await client.dead_letters() == []


async def test_kills_lose_nothing_and_leave_no_gaps(
    client: NotifierClient, amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    titles = [f"t{number}" for number in range(600)]

    async def publish() -> None:
        for number, title in enumerate(titles):
            data = {"title": title, "message": "m"}
            await client.publish("notification.created", data, audience=f"users:{','.join(USERS)}")
            if number % 10 == 0:
                await client.publish("post.created", {"communityId": "c", "n": number})

    async with notifiers(amqp_url, mongodb_uri, database_name) as (process,):
        publishing = asyncio.create_task(publish())
        for kill in range(1, 5):
            await until(client.has(inbox_channel("ann"), kill * len(titles) // 6), timeout_s=30)
            await process.restart_killed()
        await publishing
        for user in USERS:
            await until(partial(_has_all, client, user, titles), timeout_s=30)
        await until(lambda: len({delivery.key for delivery in client.on(community_channel("c"))}) == 60, timeout_s=30)
        page = await client.ask("bob", ListNotifications, NotificationPage, page=1, limit=1)
        assert await process.end(signal.SIGTERM) == 0
    for user in USERS:
        assert_lossless(client, user, titles)
    assert page.total == len(titles)
    assert await client.dead_letters() == []


async def test_alerts_fire_once_despite_kills(
    client: NotifierClient, amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    symbols = [f"S{number}" for number in range(120)]
    async with notifiers(amqp_url, mongodb_uri, database_name) as (process,):
        await asyncio.gather(*(create(client, "ann", symbol) for symbol in symbols))

        async def announce() -> None:
            for symbol in symbols:
                for price in (1.0, 5.0, 6.0):
                    await client.tick(symbol, price)

        announcing = asyncio.create_task(announce())
        for kill in range(1, 4):
            await until(client.has(inbox_channel("ann"), kill * len(symbols) // 5), timeout_s=30)
            await process.restart_killed()
        await announcing
        await until(lambda: len(set(client.titles("ann"))) == len(symbols), timeout_s=30)
        await client.tick("S0", 7.0)
        await client.notify("ann", "last")
        await until(lambda: "last" in client.titles("ann"), timeout_s=30)
    assert_lossless(client, "ann", [*(f"{symbol} above 2" for symbol in symbols), "last"])


async def test_alerts_fire_after_a_restart(
    client: NotifierClient, amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with notifier(amqp_url, mongodb_uri, database_name):
        for number in range(3):
            await create(client, "ann", f"S{number}")
    await client.tick("S0", 5.0)
    async with notifier(amqp_url, mongodb_uri, database_name):
        await client.tick("S1", 5.0)
        await until(client.has(inbox_channel("ann"), 2))
    assert_lossless(client, "ann", ["S0 above 2", "S1 above 2"])


async def test_alerts_fire_once_with_two_replicas(
    client: NotifierClient, amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with notifier(amqp_url, mongodb_uri, database_name):
        async with notifier(amqp_url, mongodb_uri, database_name):
            for number in range(20):
                await create(client, "ann", f"S{number}")
            for number in range(0, 20, 2):
                await client.tick(f"S{number}", 5.0)
        for number in range(20):
            await client.tick(f"S{number}", 6.0)
        await until(client.has(inbox_channel("ann"), 20))
    assert_lossless(client, "ann", [f"S{number} above 2" for number in range(20)])


async def test_other_replica_takes_over_after_kill(
    client: NotifierClient, amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    titles: list[str] = []
    async with notifiers(amqp_url, mongodb_uri, database_name, count=2) as processes:
        for process in processes * 2:
            for _ in range(100):
                titles.append(f"t{len(titles)}")
                await client.notify("ann", titles[-1])
            await process.restart_killed()
        await until(lambda: len(client.titles("ann")) == len(titles), timeout_s=30)
    assert_lossless(client, "ann", titles)


@pytest.mark.parametrize("what", ["broker", "database"])
async def test_work_continues_after_broker_or_database_outage(
    infrastructure: Infrastructure, amqp_url: str, mongodb_uri: str, database_name: str, what: str
) -> None:
    server = infrastructure.broker if what == "broker" else infrastructure.database
    async with notifier(amqp_url, mongodb_uri, database_name, request_timeout_s=1.0):
        async with notifier_client(amqp_url) as client:
            await create(client, "ann", "A")
            await client.notify("ann", "before")
            await until(client.has(inbox_channel("ann"), 1))
            if what == "database":
                await asyncio.to_thread(server.kill)
                await client.notify("ann", "meanwhile")
                await client.tick("A", 5.0)
                await asyncio.to_thread(server.start)
                await until(client.has(inbox_channel("ann"), 3), timeout_s=30)
                assert_lossless(client, "ann", ["before", "meanwhile", "A above 2"])
                return
        await asyncio.to_thread(server.restart)
        async with notifier_client(amqp_url) as client:
            await client.notify("ann", "after")
            await client.tick("A", 5.0)
            await until(client.has(inbox_channel("ann"), 2), timeout_s=30)
            head = await client.ask("ann", OpenInbox, InboxHead, since=0)
            assert (head.seq, head.recovered) == (3, True)
            assert sorted(client.titles("ann")) == ["A above 2", "after"]


FAILOVER_S = 1.0
SLOW_MACHINE_S = 3.0


async def is_active(process: Process) -> bool:
    """Return whether the broker delivers events to this replica: single active consumers follow one connection."""
    async with aiohttp.ClientSession() as http, http.get(f"{process.admin_url}/metrics") as response:
        return 'bus_lines_taken_total{queue="notifier.events"}' in await response.text()


async def test_killed_replica_is_replaced_within_a_second(
    client: NotifierClient, amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    """Events, alerts and revocations are published right after the kill, while the broker still sees both replicas."""
    async with notifiers(amqp_url, mongodb_uri, database_name, count=2) as processes:
        await create(client, "ann", "A")
        await client.notify("ann", "before")
        await until(client.has(inbox_channel("ann"), 1))
        active = [process for process in processes if await is_active(process)]
        assert len(active) == 1
        ended = asyncio.create_task(active[0].end(signal.SIGKILL))
        killed_s = time.monotonic()
        await client.notify("ann", "after")
        await client.tick("A", 5.0)
        await client.publish("user.banned", {"userId": "bob"})
        await until(client.has(inbox_channel("ann"), 3), timeout_s=30)
        await until(client.has(CONTROL_CHANNEL, 1), timeout_s=30)
        assert time.monotonic() - killed_s < FAILOVER_S + SLOW_MACHINE_S
        await ended
    assert_lossless(client, "ann", ["before", "after", "A above 2"])
