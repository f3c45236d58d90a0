"""compose.yaml is run: the page, a token, messages, an event, the networks, and faults under a small load."""

import asyncio
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from functools import partial

import pytest

from deploy.container.engine import Engine
from tests.containers.load import running_load
from tests.containers.stack import Stack
from tests.support.live_client import LiveClient, RestClient
from tests.support.services import free_port
from tests.support.waiting import until, until_async

pytestmark = pytest.mark.long

FROZEN_S = 3.0
BACK_TIMEOUT_S = 120.0
LONGEST_PAUSE_S = 30.0  # a restart of the broker takes the longest
FAULTY = [
    *("haproxy-1", "gateway-1", "gateway-2", "chat_service-1", "chat_service-2"),
    *("market_feed-1", "notifier-1", "rabbitmq-1", "mongodb-1"),
]
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


@pytest.fixture(scope="module")
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole of compose.yaml, healthy."""
    made = Stack(engine, tmp_path_factory.mktemp("compose"), free_port())
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def secret(stack: Stack) -> str:
    """The secret of the tokens, as a gateway reads it."""
    return stack.run("exec", "-T", "gateway", "cat", "/run/realtime/jwt_secret")


def test_page_is_served(stack: Stack) -> None:
    with urllib.request.urlopen(stack.url + "/", timeout=10) as response:
        assert response.status == 200
        assert b"<html" in response.read()


async def test_printed_token_signs_in(stack: Stack) -> None:
    signed = stack.run("exec", "-T", "gateway", "python", "-m", "gateway.cli", "token", "user_ada", "--first", "Ada")
    async with await LiveClient.open(stack.url) as client:
        await client.send("auth", token=signed)
        assert (await client.next("auth:ok"))["type"] == "auth:ok"


async def test_clients_exchange_a_message(stack: Stack, secret: str) -> None:
    room = await RestClient(stack.url, "ann", secret=secret).create_room()
    async with (
        await LiveClient.as_user(stack.url, "ann", secret=secret) as ann,
        await LiveClient.as_user(stack.url, "bob", secret=secret) as bob,
    ):
        await bob.ask("subscribe", channel="chatroom", chatroomId=room)
        assert (await ann.ask("chat:send", chatroomId=room, message="hello"))["type"] == "chat:ack"
        assert (await bob.data("chat:message"))["message"] == "hello"


async def test_publisher_reaches_a_user(stack: Stack, secret: str) -> None:
    async with await LiveClient.as_user(stack.url, "cleo", secret=secret) as cleo:
        assert (await cleo.ask("subscribe", channel="notifications"))["type"] == "subscribed"
        data = json.dumps({"userId": "cleo", "title": "New", "message": "from a publisher"})
        await asyncio.to_thread(stack.run, "run", "--rm", "-T", "publish", "notification.created", data)
        assert (await cleo.data("notification:new"))["message"] == "from a publisher"


@pytest.mark.parametrize(
    ("service", "host", "port", "reachable"),
    [
        ("chat_service", "mongodb", 27017, True),
        ("chat_service", "rabbitmq", 5672, True),
        ("gateway", "rabbitmq", 5672, True),
        ("gateway", "mongodb", 27017, False),
        ("chat_service", "gateway", 8080, False),
        ("notifier", "gateway", 9100, False),
    ],
)
def test_networks_separate_the_tiers(stack: Stack, service: str, host: str, port: int, reachable: bool) -> None:
    """By name and by address: a container without the name must not reach the address either."""
    networks = stack.containers()[f"{host}-1"]["NetworkSettings"]["Networks"]
    for target in [host, *(network["IPAddress"] for network in networks.values())] if not reachable else [host]:
        command = ("exec", "-T", service, "python", "-c", CONNECT, target, str(port))
        if reachable:
            stack.run(*command)
        else:
            with pytest.raises(subprocess.CalledProcessError):
                stack.run(*command)


def test_containers_are_limited(stack: Stack) -> None:
    for name, described in stack.containers().items():
        host = described["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["Memory"] > 0, name
        assert described["Config"]["User"] not in ("", "0", "0:0"), name
        assert all(one["HostIp"] == "127.0.0.1" for bound in host["PortBindings"].values() for one in bound), name


async def test_faults_under_load_lose_nothing(stack: Stack, secret: str) -> None:
    room = await RestClient(stack.url, "ann", secret=secret).create_room()
    pauses: dict[tuple[str, str], float] = {}
    async with running_load(stack.url, room, secret) as load:
        for name in FAULTY:
            for fault in ("restart", "kill", "freeze"):
                await until(load.acks_are_current, BACK_TIMEOUT_S)
                load.begin_window()
                await _inject(stack, fault, name)
                await until_async(partial(asyncio.to_thread, stack.is_healthy, name), bool, BACK_TIMEOUT_S)
                await until(load.acks_are_current, BACK_TIMEOUT_S)
                pauses[name, fault] = load.longest_pause_s()
                print(f"{name:16} {fault:8} longest time without an ack {pauses[name, fault]:5.2f} s", flush=True)
    acked = [seq for trader in load.traders for _, seq in trader.acked.values()]
    print(f"{load.sent} sent, {len(acked)} acknowledged, {load.answers} answers, foreign: {len(load.foreign_answers)}")
    assert load.foreign_answers == []
    assert len(acked) == len(set(acked)) == load.sent
    for trader in load.traders:
        assert trader.seqs[room] == sorted(set(trader.seqs[room]))
        assert set(acked) <= set(trader.seqs[room]) or trader.seqs[room][-1] < max(acked)
    assert max(pauses.values()) < LONGEST_PAUSE_S, pauses


async def _inject(stack: Stack, fault: str, name: str) -> None:
    if fault == "kill":
        await asyncio.to_thread(stack.kill, name)
        return
    if fault == "restart":
        await asyncio.to_thread(stack.control, "restart", name)
        return
    await asyncio.to_thread(stack.control, "pause", name)
    await asyncio.sleep(FROZEN_S)  # how long the fault lasts
    await asyncio.to_thread(stack.control, "unpause", name)
