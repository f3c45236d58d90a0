"""Notifications, price alerts, revocations and bans for real clients: all services, two gateways, the real wire."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.events import cloud_event, publish
from tests.support.live_client import LiveClient, RestClient, SocketClosed
from tests.support.services import chat_service, gateway, market_feed, notifier
from tests.support.tokens import mint

_numbers = itertools.count(1)


@pytest.fixture
async def gateways(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[tuple[str, str]]:
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        market_feed(amqp_url, mongodb_uri, database_name),
        notifier(amqp_url, mongodb_uri, database_name),
        gateway(amqp_url) as first,
        gateway(amqp_url) as second,
    ):
        yield first, second


async def announce(amqp_url: str, type_: str, data: Any, **more: Any) -> None:
    await publish(amqp_url, type_, cloud_event(f"evt-{next(_numbers)}-{time.time_ns()}", type_, data, **more))


async def test_inbox_over_rest(gateways: tuple[str, str], amqp_url: str) -> None:
    rest = RestClient(gateways[0], "alice")
    async with await LiveClient.as_user(gateways[1], "alice") as alice:
        await alice.ask("subscribe", channel="notifications")
        for number in range(3):
            await announce(amqp_url, "notification.created", {"userId": "alice", "title": f"t{number}", "message": "m"})
            await alice.data("notification:new")
    status, page = await rest.call("GET", "/v1/notifications?limit=2")
    assert status == 200
    assert page["pagination"] == {"page": 1, "limit": 2, "total": 3, "pages": 2}
    assert [item["title"] for item in page["data"]] == ["t2", "t1"]
    assert await rest.data("GET", "/v1/notifications/unread-count") == {"unreadCount": 3}
    first = page["data"][0]["id"]
    for _ in range(2):
        assert (await rest.data("POST", f"/v1/notifications/{first}/read"))["read"] is True
    assert await rest.data("GET", "/v1/notifications/unread-count") == {"unreadCount": 2}
    unread = await rest.data("GET", "/v1/notifications?unread=true")
    assert [item["title"] for item in unread] == ["t1", "t0"]
    status, body = await RestClient(gateways[0], "bob").call("POST", f"/v1/notifications/{first}/read")
    assert (status, body["error"]["code"]) == (404, "NOT_FOUND")
    assert (await rest.data("POST", "/v1/notifications/read-all")) == {"unreadCount": 0}


async def test_alert_fires_once_on_a_spike_between_two_deliveries(gateways: tuple[str, str], amqp_url: str) -> None:
    rest = RestClient(gateways[0], "alice")
    await announce(amqp_url, "market.tick", {"symbol": "SPIKE", "price": 10.0})
    alert = await rest.data("POST", "/v1/alerts", json={"symbol": "SPIKE", "direction": "above", "price": 20})
    assert alert["id"].startswith("alert_")
    assert (alert["status"], alert["firedAt"]) == ("active", None)
    async with await LiveClient.as_user(gateways[1], "alice") as alice:
        await alice.ask("subscribe", channel="notifications")
        ticks = [{"symbol": "SPIKE", "price": price} for price in (11.0, 25.0, 12.0, 26.0)]
        await announce(amqp_url, "market.tick", ticks)
        notification = await alice.data("notification:new")
        assert "SPIKE" in notification["title"] + notification["message"]
        assert notification["tick"]["price"] == 25.0
        await announce(amqp_url, "notification.created", {"userId": "alice", "title": "last", "message": "m"})
        assert (await alice.data("notification:new"))["title"] == "last"
    [fired] = await rest.data("GET", "/v1/alerts")
    assert (fired["status"], fired["firedAt"] is not None) == ("fired", True)
    assert (await RestClient(gateways[0], "bob").call("DELETE", f"/v1/alerts/{alert['id']}"))[0] == 404
    assert await rest.data("DELETE", f"/v1/alerts/{alert['id']}") == {"id": alert["id"]}
    assert await rest.data("GET", "/v1/alerts") == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"direction": "above", "price": 1}, "symbol"),
        ({"symbol": "A", "direction": "up", "price": 1}, "direction"),
        ({"symbol": "A", "direction": "above", "price": -1}, "price"),
    ],
)
async def test_wrong_alert_names_the_field(gateways: tuple[str, str], body: dict[str, Any], field: str) -> None:
    status, answer = await RestClient(gateways[0], "alice").call("POST", "/v1/alerts", json=body)
    assert (status, answer["error"]["details"][0]["field"]) == (400, field)


async def test_revoked_user_is_disconnected_until_newer_token(gateways: tuple[str, str], amqp_url: str) -> None:
    old = time.time() - 60
    here = await LiveClient.as_user(gateways[0], "mallory", iat=old)
    there = await LiveClient.as_user(gateways[1], "mallory", iat=old)
    bystander = await LiveClient.as_user(gateways[1], "alice", iat=old)
    await announce(amqp_url, "user.revoked", {"userId": "mallory"})
    for client in (here, there):
        async with asyncio.timeout(1):
            assert await client.close_code() == 4401
        assert [frame["data"]["code"] for frame in client.frames] == ["UNAUTHORIZED"]
        await client.close()
    await bystander.barrier()
    await bystander.close()
    for url in gateways:
        with pytest.raises(SocketClosed) as closed:
            await LiveClient.as_user(url, "mallory", iat=old)
        assert closed.value.code == 4401
        assert (await RestClient(url, "mallory", iat=old).call("GET", "/v1/chatrooms"))[0] == 401
    await (await LiveClient.as_user(gateways[0], "mallory", iat=time.time())).close()


async def test_banned_user_is_disconnected_on_every_gateway(gateways: tuple[str, str], amqp_url: str) -> None:
    here = await LiveClient.as_user(gateways[0], "eve")
    there = await LiveClient.as_user(gateways[1], "eve")
    await announce(amqp_url, "user.banned", {"userId": "eve"})
    for client in (here, there):
        async with asyncio.timeout(1):
            assert await client.close_code() == 4403
        await client.close()
    for url in gateways:
        with pytest.raises(SocketClosed) as closed:
            await LiveClient.as_user(url, "eve")
        assert closed.value.code == 4403
        status, body = await RestClient(url, "eve").call("GET", "/v1/chatrooms")
        assert (status, body["error"]["code"]) == (403, "FORBIDDEN")


async def test_gateway_started_later_enforces_bans(gateways: tuple[str, str], amqp_url: str) -> None:
    witness = await LiveClient.as_user(gateways[0], "trudy")
    await announce(amqp_url, "user.banned", {"userId": "trudy"})
    assert await witness.close_code() == 4403
    await witness.close()
    async with gateway(amqp_url) as late:
        client = await LiveClient.open(late)
        await client.send("auth", token=mint("trudy"))
        assert await client.close_code() == 4403
        await client.close()
