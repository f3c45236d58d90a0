"""The whole path over TLS: `amqps` to a RabbitMQ node, and TLS to the database, with certificates of a private CA."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bus.amqp import CONNECTION_LOST_ERRORS
from shared.bus.broker_connection import BrokerConnection
from shared.bus.hosts import BrokerHosts
from tests.support.events import cloud_event, publish
from tests.support.people import people
from tests.support.services import chat_service, gateway, notifier
from tests.support.tls_servers import TlsBroker, TlsDatabase, TlsFiles


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return TlsFiles(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, files: TlsFiles) -> Iterator[TlsBroker]:
    with TlsBroker(tmp_path_factory.mktemp("broker"), files) as started:
        yield started


async def test_message_and_event_pass_over_tls(
    broker: TlsBroker, files: TlsFiles, mongodb_uri: str, database_name: str
) -> None:
    amqps = broker.tls_url(files.authority)
    with TlsDatabase(mongodb_uri, files) as database:
        uri = f"{database}&tlsCAFile={files.authority}"
        async with (
            chat_service(amqps, uri, database_name),
            notifier(amqps, uri, database_name),
            gateway(amqps) as url,
        ):
            alice = people(url)("alice")
            room = await alice.create_room()
            async with await alice.live() as live:
                await live.ask("subscribe", channel="chatroom", chatroomId=room)
                await live.ask("subscribe", channel="notifications")
                for number in range(20):  # so that some arrive in the middle of a TLS record
                    text = f"{number} " * 2_000
                    await live.send("chat:send", chatroomId=room, message=text[:4_000])
                for number in range(20):
                    assert (await live.data("chat:message"))["message"].split()[0] == str(number)
                data = {"userId": alice.id, "title": "t", "message": "m"}
                await publish(amqps, "notification.created", cloud_event("over-tls", "notification.created", data))
                assert (await live.data("notification:new"))["title"] == "t"


async def test_broker_of_an_unknown_ca_is_refused(broker: TlsBroker, tmp_path: Path) -> None:
    stranger = broker.tls_url(TlsFiles(tmp_path).authority)
    with pytest.raises(CONNECTION_LOST_ERRORS, match="certificate verify failed"):
        await BrokerConnection.open(BrokerHosts(stranger), "test")


async def test_database_of_an_unknown_ca_is_refused(
    amqp_url: str, mongodb_uri: str, files: TlsFiles, tmp_path: Path, database_name: str
) -> None:
    with TlsDatabase(mongodb_uri, files) as database:
        uri = f"{database}&tlsCAFile={TlsFiles(tmp_path).authority}"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3), chat_service(amqp_url, uri, database_name):
                raise AssertionError("chat_service started without a database")
