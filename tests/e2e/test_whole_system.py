"""The whole system of real processes, used as its clients and internal services use it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aio_pika
import aiohttp
import pytest

from shared.ids import Prefix, new_id
from tests.support.events import cloud_event, publish
from tests.support.live_client import LiveClient, SocketClosed
from tests.support.local_system import LocalSystem
from tests.support.people import Person, people
from tests.support.tokens import mint
from tests.support.waiting import until

GATEWAYS = ("GATEWAY_1", "GATEWAY_2")
SERVICES = (*GATEWAYS, "CHAT_SERVICE", "MARKET_FEED", "NOTIFIER")
RECOVERY_TIMEOUT_S = 30.0
ATTEMPT_TIMEOUT_S = 5.0
ATTEMPTS_PAUSE_S = 0.2
DEAD_QUEUE = "realtime.dead"

# The example of protocol.md.
EXAMPLE_EVENT = """
    {"specversion": "1.0", "id": "evt_1", "source": "/services/posts", "type": "post.created",
     "time": "2025-10-21T12:00:00.000Z", "audience": "community:community_789", "data": {"postId": "post_123"}}
"""


async def admin(system: LocalSystem, name: str, path: str) -> tuple[int, str]:
    """Return status and text of a path on a service's admin server."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{system.entries()[f'{name}_ADMIN_URL']}{path}") as response,
    ):
        return response.status, await response.text()


async def sockets_of(system: LocalSystem, name: str) -> int:
    """Return the number of sockets that a gateway reports."""
    _, text = await admin(system, name, "/metrics")
    (line,) = [line for line in text.splitlines() if line.startswith("gateway_connections ")]
    return round(float(line.split()[1]))


async def all_ready(system: LocalSystem) -> None:
    statuses = [(await admin(system, name, "/readyz"))[0] for name in SERVICES]
    assert statuses == [200] * len(SERVICES)


async def open_on(system: LocalSystem, stack: AsyncExitStack, name: str, person: Person) -> LiveClient:
    """Open a socket of `person` on this gateway; takes several tries, since the kernel distributes connections."""
    url = system.entries()["GATEWAY_URL"]
    for _ in range(60):
        before = await sockets_of(system, name)
        client = await stack.enter_async_context(await LiveClient.open(url))
        if await sockets_of(system, name) > before:
            assert (await client.ask("auth", token=mint(person.id)))["type"] == "auth:ok"
            return client
    raise AssertionError(f"none of 60 sockets came to {name}")


@asynccontextmanager
async def on_two_gateways(system: LocalSystem, alice: Person, bob: Person) -> AsyncIterator[tuple[LiveClient, ...]]:
    """Yield a socket of alice on the first gateway and one of bob on the second."""
    async with AsyncExitStack() as stack:
        yield await open_on(system, stack, GATEWAYS[0], alice), await open_on(system, stack, GATEWAYS[1], bob)


async def no_sockets_left(system: LocalSystem) -> None:
    """Wait until the gateways have closed the sockets of earlier tests."""

    async def check() -> None:
        assert [await sockets_of(system, name) for name in GATEWAYS] == [0, 0]

    async with asyncio.timeout(10):
        await eventually(check, pause_s=0.02)


async def subscribed(client: LiveClient, channel: str, **fields: Any) -> dict[str, Any]:
    answer = await client.ask("subscribe", channel=channel, **fields)
    assert answer["type"] == "subscribed", answer
    data: dict[str, Any] = answer["data"]
    return data


def notification(user_id: str, title: str) -> bytes:
    data = {"userId": user_id, "title": title, "message": "m", "priority": "medium"}
    return cloud_event(new_id(Prefix.COMMAND), "notification.created", data)


async def test_clients_on_two_gateways_share_chat_prices_and_events(system: LocalSystem) -> None:
    entries = system.entries()
    meet = people(entries["GATEWAY_URL"])
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room()
    await no_sockets_left(system)
    async with on_two_gateways(system, alice, bob) as clients:
        for client in clients:
            await subscribed(client, "chatroom", chatroomId=room)
            await subscribed(client, "notifications")
            await subscribed(client, "community", communityId="community_789")
            prices = await subscribed(client, "market", symbols=["EUR/USD", "XAU/USD"])
            assert (prices["symbols"], prices["unknown"]) == (["EUR/USD", "XAU/USD"], [])
        sent = []
        for number, client in enumerate(clients * 3):
            ack = await client.ask("chat:send", chatroomId=room, message=f"m{number}")
            sent.append(ack["data"]["messageId"])
        for client in clients:
            got = [await client.data("chat:message") for _ in sent]
            assert [message["messageId"] for message in got] == sent
            assert [message["seq"] for message in got] == [1, 2, 3, 4, 5, 6]
            for symbol in ("EUR/USD", "XAU/USD"):
                seqs = [(await price_of(client, symbol))["seq"] for _ in range(2)]
                assert seqs[0] < seqs[1]
        await publish(entries["AMQP_URL"], "post.created", EXAMPLE_EVENT.encode())
        await publish(entries["AMQP_URL"], "notification.created", notification(bob.id, "For bob"))
        for client in clients:
            assert await client.data("post:created") == {"postId": "post_123"}
        entry = await clients[1].data("notification:new")
        assert (entry["title"], entry["priority"], entry["seq"]) == ("For bob", "medium", 1)
        await clients[0].barrier()
        assert [frame for frame in clients[0].frames if frame["type"] == "notification:new"] == []
    for person in (alice, bob):
        status, body = await person.call("GET", f"/v1/chatrooms/{room}/messages")
        assert (status, body["pagination"]) == (200, {"page": 1, "limit": 50, "total": 6, "pages": 1})
        assert [message["id"] for message in body["data"]] == sent[::-1]


async def price_of(client: LiveClient, symbol: str) -> Any:
    frame = await client.take(lambda frame: frame["type"] == "market:price" and frame["data"]["symbol"] == symbol)
    return frame["data"]


@pytest.mark.parametrize(
    ("routing_key", "body", "reason"),
    [
        ("notification.created", b"this is no JSON", "not valid JSON"),
        ("post.created", b'{"specversion": "1.0", "id": "evt_2", "type": "post.created", "data": {}}', "source"),
        ("post.created", b"\xff\xfe", ""),
        ("market.tick", b'{"data": [', ""),
        ("user.updated", b"[]", ""),
    ],
)
async def test_malformed_event_is_dead_lettered_without_side_effects(
    system: LocalSystem, routing_key: str, body: bytes, reason: str
) -> None:
    entries = system.entries()
    alice = people(entries["GATEWAY_URL"])("alice")
    async with await alice.live() as client:
        await subscribed(client, "notifications")
        await publish(entries["AMQP_URL"], routing_key, body)
        dead = await take_dead(entries["AMQP_URL"], body)
        assert reason in str(dead.headers["reason"])
        assert str(dead.headers["reason"])
        await publish(entries["AMQP_URL"], "notification.created", notification(alice.id, "After it"))
        assert (await client.data("notification:new"))["title"] == "After it"
    await all_ready(system)
    assert system.entries() == entries  # no process restarted


async def take_dead(amqp_url: str, body: bytes) -> aio_pika.abc.AbstractIncomingMessage:
    """Wait for this body in the dead letter queue and remove it; it must occur once."""
    async with await aio_pika.connect(amqp_url) as connection:
        queue = await (await connection.channel()).get_queue(DEAD_QUEUE)
        async with asyncio.timeout(10):
            while (message := await queue.get(fail=False)) is None or message.body != body:
                if message is None:
                    await asyncio.sleep(0.02)
                else:
                    await message.ack()
        await message.ack()
        assert await queue.get(fail=False) is None
        return message


@pytest.mark.parametrize("killed", ["CHAT_SERVICE", "MARKET_FEED", "NOTIFIER", "GATEWAY_1"])
async def test_system_recovers_after_sigkill(system: LocalSystem, killed: str) -> None:
    before = system.entries()
    meet = people(before["GATEWAY_URL"])
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room()
    await no_sockets_left(system)
    async with AsyncExitStack() as stack:
        watching = await open_on(system, stack, GATEWAYS[1], bob)
        await subscribed(watching, "chatroom", chatroomId=room)
        await subscribed(watching, "notifications")
        await subscribed(watching, "market", symbols=["EUR/USD"])
        system.kill(killed)
        async with asyncio.timeout(RECOVERY_TIMEOUT_S):
            await until(lambda: system.entries()[f"{killed}_PID"] != before[f"{killed}_PID"], RECOVERY_TIMEOUT_S)
            await eventually(lambda: all_ready(system))
            await eventually(lambda: everything_works(system, meet("carol")))
            # The socket that stayed open receives everything that follows.
            await eventually(lambda: alice.data("POST", f"/v1/chatrooms/{room}/messages", json=ONCE))
            assert (await watching.data("chat:message"))["message"] == ONCE["message"]
            await publish(before["AMQP_URL"], "notification.created", notification(bob.id, "After it"))
            assert (await watching.data("notification:new"))["title"] == "After it"
            seen = [frame["data"]["seq"] for frame in watching.frames if frame["type"] == "market:price"]
            watching.frames.clear()
            assert (await price_of(watching, "EUR/USD"))["seq"] > max(seen)
    after = system.entries()
    assert {name for name in before if before[name] != after[name]} == {
        name for name in before if name in {f"{killed}_PID", f"{killed}_1_PID"}
    }
    assert [message["message"] for message in await alice.data("GET", f"/v1/chatrooms/{room}/messages")] == [
        ONCE["message"]
    ]


ONCE = {"message": "still here?", "clientMessageId": "once"}


async def everything_works(system: LocalSystem, person: Person) -> None:
    """Check a message, a price and a notification on a new socket."""
    async with await person.live() as client:
        room = await person.create_room()
        await subscribed(client, "chatroom", chatroomId=room)
        ack = await client.ask("chat:send", chatroomId=room, message="x")
        assert ack["type"] == "chat:ack", ack
        assert (await client.data("chat:message"))["messageId"] == ack["data"]["messageId"]
        await subscribed(client, "notifications")
        await publish(system.entries()["AMQP_URL"], "notification.created", notification(person.id, "x"))
        assert (await client.data("notification:new"))["title"] == "x"
        assert (await subscribed(client, "market", symbols=["EUR/USD"]))["symbols"] == ["EUR/USD"]
        first = await price_of(client, "EUR/USD")
        assert (await price_of(client, "EUR/USD"))["seq"] > first["seq"]


async def eventually(attempt: Callable[[], Awaitable[Any]], pause_s: float = ATTEMPTS_PAUSE_S) -> None:
    """Retry until it succeeds; the caller sets the deadline."""
    while True:
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                await attempt()
                return
        except (AssertionError, TimeoutError, SocketClosed, aiohttp.ClientError, json.JSONDecodeError):
            await asyncio.sleep(pause_s)
