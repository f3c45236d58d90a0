"""The system on a virtual host where each service has only the rights of its own account."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aio_pika
import aiormq
import pytest

from deploy.local.settings import PROJECT
from deploy.tools import broker_definitions
from gateway.cli.bus import publish
from shared.bus.topology import DEAD, EVENTS, NOTIFIER_EVENTS, REQUESTS
from shared.errors import Unavailable
from shared.ids import Prefix, new_id
from tests.support.events import cloud_event
from tests.support.infrastructure import Infrastructure
from tests.support.live_client import LiveClient, RestClient
from tests.support.services import chat_service, gateway, market_feed, notifier

VHOST = "accounts"
ACCESS_REFUSED = aiormq.exceptions.ChannelAccessRefused


class Accounts:
    """The addresses of the accounts on a virtual host of their own, which has nothing but the definitions."""

    def __init__(self, infrastructure: Infrastructure, directory: Path) -> None:
        self._address = infrastructure.amqp_url.rpartition("@")[2].rstrip("/")
        text = (PROJECT / "deploy" / "rabbitmq" / "permissions.json").read_text().replace('"/"', f'"{VHOST}"')
        permissions: dict[str, Any] = json.loads(text)
        self._passwords = {name: new_id(Prefix.SESSION) for name in broker_definitions.user_names(permissions)}
        file = directory / "definitions.json"
        file.write_text(json.dumps(broker_definitions.definitions(permissions, self._passwords)))
        infrastructure.broker.control("import_definitions", str(file))

    def url(self, account: str) -> str:
        """Return the broker's address for an account."""
        return f"amqp://{account}:{self._passwords[account]}@{self._address}/{VHOST}"


@pytest.fixture(scope="module")
async def accounts(infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Accounts]:
    """The accounts; virtual host and users are removed afterwards."""
    made = Accounts(infrastructure, tmp_path_factory.mktemp("accounts"))
    yield made
    infrastructure.broker.control("delete_vhost", VHOST)


@pytest.fixture(scope="module")
async def url(infrastructure: Infrastructure, accounts: Accounts) -> AsyncIterator[str]:
    """The address of a gateway; it, and all services beside it, use their own accounts."""
    database = (accounts.url("worker"), infrastructure.mongodb_uri, new_id(Prefix.COMMAND))
    async with AsyncExitStack() as services:
        for service in (notifier, chat_service, market_feed):
            await services.enter_async_context(service(*database))
        yield await services.enter_async_context(gateway(accounts.url("gateway")))


@pytest.fixture
async def channel(accounts: Accounts, url: str) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel of the publisher's account, while the system runs."""
    async with await aio_pika.connect(accounts.url("publisher")) as connection:
        yield await connection.channel()


async def test_message_reaches_its_room(url: str) -> None:
    room = await RestClient(url, "ann").create_room()
    async with await LiveClient.as_user(url, "ann") as ann, await LiveClient.as_user(url, "bob") as bob:
        await bob.ask("subscribe", channel="chatroom", chatroomId=room)
        assert (await ann.ask("chat:send", chatroomId=room, message="hello"))["type"] == "chat:ack"
        assert (await bob.data("chat:message"))["message"] == "hello"


async def test_published_event_reaches_its_user(accounts: Accounts, url: str) -> None:
    async with await LiveClient.as_user(url, "cleo") as cleo:
        assert (await cleo.ask("subscribe", channel="notifications"))["type"] == "subscribed"
        data = {"userId": "cleo", "title": "New", "message": "from the publisher"}
        await publish(accounts.url("publisher"), cloud_event(new_id(Prefix.EVENT), "notification.created", data))
        arrived = await cleo.next("notification:new")
        assert arrived["data"]["message"] == "from the publisher"


async def test_publisher_may_not_declare(channel: aio_pika.abc.AbstractChannel) -> None:
    with pytest.raises(ACCESS_REFUSED):
        await channel.declare_queue("mine", exclusive=True)


async def test_publisher_may_not_declare_an_exchange(channel: aio_pika.abc.AbstractChannel) -> None:
    with pytest.raises(ACCESS_REFUSED):
        await channel.declare_exchange("mine")


async def test_publisher_may_not_bind(channel: aio_pika.abc.AbstractChannel) -> None:
    queue = await channel.get_queue(NOTIFIER_EVENTS, ensure=False)
    with pytest.raises(ACCESS_REFUSED):
        await queue.bind(EVENTS, "#")


async def test_publisher_may_not_consume(channel: aio_pika.abc.AbstractChannel) -> None:
    underlay = await channel.get_underlay_channel()
    with pytest.raises(ACCESS_REFUSED):
        await underlay.basic_consume(DEAD, lambda _: None)  # type: ignore[arg-type, return-value]


async def test_publisher_may_not_get(channel: aio_pika.abc.AbstractChannel) -> None:
    queue = await channel.get_queue(DEAD, ensure=False)
    with pytest.raises(ACCESS_REFUSED):
        await queue.get(timeout=5)


async def test_publisher_may_not_delete(channel: aio_pika.abc.AbstractChannel) -> None:
    with pytest.raises(ACCESS_REFUSED):
        await channel.exchange_delete(EVENTS)


@pytest.mark.parametrize("exchange", ["", REQUESTS])
async def test_publisher_may_not_publish_elsewhere(channel: aio_pika.abc.AbstractChannel, exchange: str) -> None:
    underlay = await channel.get_underlay_channel()
    with pytest.raises(ACCESS_REFUSED):
        await underlay.basic_publish(b"forged", exchange=exchange, routing_key=NOTIFIER_EVENTS, timeout=5)


async def test_gateway_may_not_publish_events(accounts: Accounts, url: str) -> None:
    body = cloud_event(new_id(Prefix.EVENT), "notification.created", {"userId": "cleo", "title": "t", "message": "m"})
    with pytest.raises(Unavailable, match="ACCESS_REFUSED"):
        await publish(accounts.url("gateway"), body)
