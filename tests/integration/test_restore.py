"""A restored backup: gateways go on without a restart, and clients that are ahead of it are told so."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import pytest

from shared.mongo import Database
from tests.support.database_copy import DatabaseCopy
from tests.support.events import cloud_event, publish
from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.ready_database import ready_database
from tests.support.services import chat_service, free_port, gateway, notifier
from tests.support.waiting import until_async

RESTARTING = 1012
ANSWERED_WITHIN_S = 20.0
RESTORES, LOST = METRICS = "gateway_restores_total", "gateway_gaps_lost_total"


@dataclass
class Site:
    """One gateway that runs throughout, and workers that an operator stops for a restore."""

    url: str
    admin_url: str
    amqp_url: str
    mongodb_uri: str
    database: Database
    stack: AsyncExitStack = field(repr=False)
    before: dict[str, float] = field(default_factory=dict)

    @asynccontextmanager
    async def workers(self) -> AsyncIterator[None]:
        place = self.amqp_url, self.mongodb_uri, self.database.name
        async with chat_service(*place), notifier(*place):
            yield

    async def client(self, user: str) -> LiveClient:
        return await self.stack.enter_async_context(await LiveClient.as_user(self.url, user))


@pytest.fixture
async def site(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[Site]:
    admin_port = free_port()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(ready_database(mongodb_uri, database_name, {}))
        place = amqp_url, mongodb_uri, database_name
        async with chat_service(*place), notifier(*place):
            url = await stack.enter_async_context(gateway(amqp_url, admin_port=admin_port, request_timeout_s=2.0))
        site = Site(url, f"http://127.0.0.1:{admin_port}", amqp_url, mongodb_uri, database, stack)
        site.before = {name: await metric(site, name) for name in METRICS}
        yield site


async def room_of(site: Site) -> str:
    """Create a room, once the workers that have just started answer."""

    async def create() -> tuple[int, Frame]:
        return await RestClient(site.url, "ann").call("POST", "/v1/chatrooms", json={"name": "Room", "type": "public"})

    _, body = await until_async(create, lambda answer: answer[0] == 201, ANSWERED_WITHIN_S)
    return str(body["data"]["id"])


async def say(client: LiveClient, room: str, *texts: str) -> list[Frame]:
    """Send messages, each until it is acknowledged, and return the acks."""

    async def ask(text: str) -> Frame:
        return await client.ask("chat:send", chatroomId=room, message=text, clientMessageId=text)

    return [await until_async(partial(ask, text), is_ack, ANSWERED_WITHIN_S) for text in texts]


def is_ack(answer: Frame) -> bool:
    return bool(answer["type"] == "chat:ack")


async def subscribed(client: LiveClient, room: str, **more: object) -> Frame:
    answer = await client.ask("subscribe", channel="chatroom", chatroomId=room, **more)
    assert answer["type"] == "subscribed", answer
    data: Frame = answer["data"]
    return data


async def texts_of(client: LiveClient, count: int) -> list[str]:
    return [(await client.data("chat:message"))["message"] for _ in range(count)]


async def metric(site: Site, name: str) -> float:
    """Return how much a counter has grown during the test; all gateways of this process share it."""
    async with aiohttp.ClientSession() as http, http.get(f"{site.admin_url}/metrics") as response:
        lines = (await response.text()).splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")]
    return values[0] - site.before.get(name, 0.0)


async def test_clients_ahead_of_backup_are_told_and_gateway_goes_on(site: Site) -> None:
    async with site.workers():
        room = await room_of(site)
        reader, writer = await site.client("bob"), await site.client("ann")
        await subscribed(reader, room)
        await say(writer, room, "one", "two", "three")
    copy = await DatabaseCopy.take(site.database)
    async with site.workers():
        await say(writer, room, "four", "five")
        assert await texts_of(reader, 5) == ["one", "two", "three", "four", "five"]
    await copy.restore(site.database)
    async with site.workers():
        for client in (reader, writer):
            assert "reconnectAfterMs" in await client.data("server:drain")
            assert await client.close_code() == RESTARTING
        reader, writer = await site.client("bob"), await site.client("ann")
        assert (await subscribed(reader, room, since=5))["recovered"] is False
        (ack,) = await say(writer, room, "another four")  # by an owner whose term is lower than the earlier one
        assert ack["data"]["seq"] == 4
        assert await texts_of(reader, 1) == ["another four"]
        other = await site.client("cat")
        answer = await subscribed(other, room, since=1)
        assert (answer["recovered"], answer["replayed"]) == (True, 3)
        assert await texts_of(other, 3) == ["two", "three", "another four"]
    assert await metric(site, RESTORES) == 1
    assert await metric(site, LOST) == 0


async def test_inbox_continues_from_backup(site: Site) -> None:
    async def notify(id_: str) -> None:
        event = cloud_event(id_, "notification.created", {"userId": "bob", "title": id_, "message": "m"})
        await publish(site.amqp_url, "notification.created", event)

    async with site.workers():
        reader = await site.client("bob")
        await reader.ask("subscribe", channel="notifications")
        await notify("first")
        assert (await reader.data("notification:new"))["seq"] == 1
    copy = await DatabaseCopy.take(site.database)
    async with site.workers():
        await notify("second")
        assert (await reader.data("notification:new"))["seq"] == 2
    await copy.restore(site.database)
    async with site.workers():
        assert await reader.close_code() == RESTARTING
        reader = await site.client("bob")
        answer = await reader.ask("subscribe", channel="notifications", since=2)
        assert (answer["data"]["recovered"], answer["data"]["seq"]) == (False, 1)
        await notify("third")
        received = await reader.data("notification:new")
        assert (received["title"], received["seq"]) == ("third", 2)


async def test_restart_of_workers_closes_no_socket(site: Site) -> None:
    async with site.workers():
        room = await room_of(site)
        writer = await site.client("ann")
        await subscribed(writer, room)
        await say(writer, room, "one")
    async with site.workers():
        await say(writer, room, "two")
        assert await texts_of(writer, 2) == ["one", "two"]
    assert await metric(site, RESTORES) == 0
