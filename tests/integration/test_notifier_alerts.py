"""Price alerts: from a tick of market_feed to the user's inbox, once, despite kills and restarts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from notifier.alerts.store import DROPPED_AT_ONCE, FIRED_MAX, INDEXES, AlertStore
from notifier.alerts.trimming import FiredAlertTrimmer
from shared.bus.delivery import inbox_channel
from shared.bus.topology import NOTIFIER_ALERTS, NOTIFIER_TICKS
from shared.commands.notifier import (
    AlertDirection,
    AlertPage,
    AlertStatus,
    AlertView,
    CreateAlert,
    DeleteAlert,
    ListAlerts,
)
from shared.errors import ErrorCode, Refusal
from shared.ids import Prefix, new_id
from tests.support.infrastructure import Infrastructure
from tests.support.notifications import NotifierClient, frame_of, notifier_client
from tests.support.queues import empty_queues
from tests.support.ready_database import ready_database
from tests.support.services import notifier
from tests.support.waiting import until, until_async

ABOVE, BELOW = AlertDirection.ABOVE, AlertDirection.BELOW


@pytest.fixture(scope="module")
async def client(infrastructure: Infrastructure) -> AsyncIterator[NotifierClient]:
    """One notifier, shared by all tests here; each test has its own user and symbol."""
    await empty_queues(infrastructure.amqp_url)
    async with (
        notifier(infrastructure.amqp_url, infrastructure.mongodb_uri, new_id(Prefix.COMMAND), alerts_max_per_user=3),
        notifier_client(infrastructure.amqp_url) as client,
    ):
        yield client


@pytest.fixture
def user() -> str:
    """A user of this test only."""
    return new_id(Prefix.SESSION)


@pytest.fixture
def symbol(user: str) -> str:
    """A symbol of this test only."""
    return user[-20:]


async def create(
    client: NotifierClient, user: str, symbol: str, price: float, direction: AlertDirection = ABOVE
) -> AlertView:
    alert: dict[str, Any] = {"alert_id": new_id(Prefix.ALERT), "symbol": symbol, "direction": direction, "price": price}
    return await client.ask(user, CreateAlert, AlertView, **alert)


async def alerts_of(client: NotifierClient, user: str) -> list[AlertView]:
    return list((await client.ask(user, ListAlerts, AlertPage)).items)


async def settled(client: NotifierClient) -> None:
    """Wait until all announced ticks and their consequences have been handled."""
    marker = new_id(Prefix.SESSION)
    await create(client, marker, marker[-20:], 1.0)
    await client.tick(marker[-20:], 1.0)
    await until(client.has(inbox_channel(marker), 1))


async def test_alert_fires_once_on_spike_with_its_tick(client: NotifierClient, user: str, symbol: str) -> None:
    alert = await create(client, user, symbol, 1.10)
    assert (alert.status, alert.fired_at) == (AlertStatus.ACTIVE, None)
    await client.tick(symbol, 1.08, 1.12, 1.09, 1.13, first_seq=41)
    await until(client.has(inbox_channel(user), 1))
    await client.tick(symbol, 1.14, first_seq=45)
    await settled(client)
    [delivery] = client.inbox(user)
    frame = frame_of(delivery)
    assert frame["type"] == "notification:new"
    assert frame["data"]["tick"] == {"price": 1.12, "seq": 42, "timestamp": "2025-10-21T12:00:00.000Z"}
    assert frame["data"]["alert"] == {"id": alert.id, "symbol": symbol, "direction": "above", "price": 1.1}
    assert (frame["data"]["title"], frame["data"]["priority"]) == (f"{symbol} above 1.1", "high")
    [listed] = await alerts_of(client, user)
    assert (listed.id, listed.status, listed.created_at) == (alert.id, AlertStatus.FIRED, alert.created_at)
    assert listed.fired_at is not None


async def test_only_reached_alerts_fire(client: NotifierClient, user: str, symbol: str) -> None:
    await create(client, user, symbol, 2.0)
    low = await create(client, user, symbol, 1.0, BELOW)
    await client.tick(symbol, 1.5, 1.0, 1.5)
    await client.tick(f"{symbol}x", 9.0)
    await settled(client)
    [delivery] = client.inbox(user)
    assert frame_of(delivery)["data"]["alert"]["id"] == low.id
    assert {alert.status for alert in await alerts_of(client, user) if alert.id != low.id} == {AlertStatus.ACTIVE}


async def test_earlier_ticks_do_not_fire_alert(client: NotifierClient, user: str, symbol: str) -> None:
    await client.tick(symbol, 5.0)
    await create(client, user, symbol, 2.0)
    await settled(client)
    assert client.inbox(user) == []


async def test_deleted_alert_does_not_fire(client: NotifierClient, user: str, symbol: str) -> None:
    alert = await create(client, user, symbol, 2.0)
    assert (await client.ask(user, DeleteAlert, AlertView, alert_id=alert.id)).id == alert.id
    await client.tick(symbol, 5.0)
    await settled(client)
    assert client.inbox(user) == []
    assert await alerts_of(client, user) == []


async def test_alert_of_other_user_is_not_found(client: NotifierClient, user: str, symbol: str) -> None:
    alert = await create(client, user, symbol, 2.0)
    for caller, id_ in ((f"{user}x", alert.id), (user, "alert_of_nobody")):
        with pytest.raises(Refusal) as refusal:
            await client.ask(caller, DeleteAlert, AlertView, alert_id=id_)
        assert refusal.value.code is ErrorCode.NOT_FOUND
    assert await alerts_of(client, f"{user}x") == []
    assert [one.id for one in await alerts_of(client, user)] == [alert.id]


async def test_duplicate_command_makes_one_alert(client: NotifierClient, user: str, symbol: str) -> None:
    alert: dict[str, Any] = {"alert_id": new_id(Prefix.ALERT), "symbol": symbol, "direction": ABOVE, "price": 2.0}
    once = await client.ask(user, CreateAlert, AlertView, **alert)
    again = await client.ask(user, CreateAlert, AlertView, **alert)
    assert (once.id, once.created_at) == (again.id, again.created_at)
    assert len(await alerts_of(client, user)) == 1


async def test_active_alerts_are_limited_per_user(client: NotifierClient, user: str, symbol: str) -> None:
    last: dict[str, Any] = {"alert_id": new_id(Prefix.ALERT), "symbol": symbol, "direction": ABOVE, "price": 3.0}
    for price in (1.0, 2.0):
        await create(client, user, symbol, price)
    once = await client.ask(user, CreateAlert, AlertView, **last)
    assert (await client.ask(user, CreateAlert, AlertView, **last)).id == once.id  # repeated, and no fourth alert
    with pytest.raises(Refusal, match="at most 3 active alerts") as refusal:
        await create(client, user, symbol, 4.0)
    assert refusal.value.code is ErrorCode.VALIDATION
    await client.tick(symbol, 1.0)
    await settled(client)
    await create(client, user, symbol, 4.0)
    assert [alert.price for alert in await alerts_of(client, user)] == [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("key", [NOTIFIER_TICKS, NOTIFIER_ALERTS])
async def test_garbled_line_is_dead_lettered_and_next_counts(
    client: NotifierClient, user: str, symbol: str, key: str
) -> None:
    await client.dead_letters()
    await create(client, user, symbol, 2.0)
    await client.command(key, b'{"garbled')
    await client.tick(symbol, 5.0)
    await until(client.has(inbox_channel(user), 1))
    assert [body for _, body in await client.dead_letters()] == [b'{"garbled']


async def test_only_the_newest_thousand_fired_alerts_of_a_user_are_kept(mongodb_uri: str, database_name: str) -> None:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        store, alerts = AlertStore(database, ttl_days=90), database["alerts"]
        for user in ("ann", "bob"):
            await alerts.insert_many([stored_alert(user, number, "fired") for number in range(FIRED_MAX + 3)])
        await alerts.insert_many([stored_alert("ann", number, "active") for number in range(2)])
        await store.drop_oldest("ann")
        left = await alerts.find({"userId": "ann", "status": "fired"}).sort("firedAtMs", 1).to_list(None)
        assert [document["firedAtMs"] for document in left] == list(range(3, FIRED_MAX + 3))
        assert await alerts.count_documents({"userId": "bob"}) == FIRED_MAX + 3
        assert await store.has_active("ann", 2)
        assert not await store.has_active("ann", 3)


def stored_alert(user: str, number: int, status: str) -> dict[str, str | int]:
    alert: dict[str, str | int] = {"_id": f"{user} {status} {number}", "userId": user, "status": status}
    return alert | {"firedAtMs": number} if status == "fired" else alert


async def test_trimmer_drops_the_surplus_of_users_whose_alerts_fired(mongodb_uri: str, database_name: str) -> None:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        alerts = database["alerts"]
        await alerts.insert_many(
            [stored_alert("ann", number, "fired") for number in range(FIRED_MAX + 2 * DROPPED_AT_ONCE)]
        )
        trimmer = FiredAlertTrimmer(AlertStore(database, ttl_days=90))
        trimmer.note(["ann"])
        running = asyncio.create_task(trimmer.run())
        await until_async(lambda: alerts.count_documents({}), lambda left: left == FIRED_MAX)
        running.cancel()
