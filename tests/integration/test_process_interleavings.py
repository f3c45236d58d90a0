"""Processes frozen, killed and refused at the moment that matters: real processes on the real broker and database."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.support.database_proxy import CutReply, Effect, FailWriteConcern, RefuseCommand, database_proxy
from tests.support.delivery_loss import lossy_broker
from tests.support.events import cloud_event, publish
from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.service_process import Process
from tests.support.services import chat_service, free_port, gateway, gateway_alone, notifier
from tests.support.tokens import SECRET
from tests.support.waiting import until

pytestmark = pytest.mark.long

FROZEN_S = 5.0
DROPPED_S = 8.0  # frozen for so long, a process has lost its connection to the broker: two to three heartbeats of 2 s
QUIET_S = 1.0
END_MAX_S = 20.0
ANSWER_MAX_S = 25.0
STOP_MAX_S = 15.0


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def chat_process(amqp_url: str, mongodb_uri: str, database_name: str, stack: AsyncExitStack) -> Process:
    """Return a chat_service that has not been started."""
    environment = {"AMQP_URL": amqp_url, "MONGODB_URI": mongodb_uri, "MONGODB_DATABASE": database_name}
    process = Process("chat_service", environment | {"ADMIN_HOST": "127.0.0.1"})
    stack.push_async_callback(end, process)
    return process


async def end(process: Process) -> None:
    """Kill a process, if it was started."""
    if process.is_started:
        process.send_signal(signal.SIGCONT)
        await process.end(signal.SIGKILL)


def texts(client: LiveClient) -> list[str]:
    """Return the messages that a socket received so far."""
    return [frame["data"]["message"] for frame in client.frames if frame["type"] == "chat:message"]


# A thawed gateway -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before_s", [0.0, DROPPED_S], ids=["lines wait in its queue", "its queue is gone"])
async def test_thawed_gateway_shows_banned_and_removed_users_nothing_sent_after(
    amqp_url: str, mongodb_uri: str, database_name: str, stack: AsyncExitStack, before_s: float
) -> None:
    await stack.enter_async_context(chat_service(amqp_url, mongodb_uri, database_name))
    await stack.enter_async_context(notifier(amqp_url, mongodb_uri, database_name))
    near = await stack.enter_async_context(gateway(amqp_url))
    port = free_port()
    listening = {"GATEWAY_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "ADMIN_HOST": "127.0.0.1"}
    frozen = Process("gateway", {"AMQP_URL": amqp_url, "JWT_SECRET": SECRET} | listening)
    stack.push_async_callback(end, frozen)
    await frozen.start()
    ann = RestClient(near, "ann")
    public, private = await ann.create_room(), await ann.create_room("Secret", "private", memberIds=["ben", "eve"])
    readers: dict[str, LiveClient] = {}
    for user, room in (("ben", public), ("ben", private), ("mallory", public), ("eve", private)):
        if user not in readers:
            opening = LiveClient.as_user(f"http://127.0.0.1:{port}", user)
            readers[user] = await stack.enter_async_context(await opening)
        assert (await readers[user].ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "subscribed"
    witness = await stack.enter_async_context(await LiveClient.as_user(near, "mallory"))

    frozen.send_signal(signal.SIGSTOP)
    thaw = asyncio.create_task(asyncio.sleep(max(FROZEN_S, before_s)))
    await asyncio.sleep(before_s)
    await publish(amqp_url, "user.banned", cloud_event("evt-ban", "user.banned", {"userId": "mallory"}))
    assert await witness.close_code() == 4403
    await ann.data("DELETE", f"/v1/chatrooms/{private}/members/eve")
    for number in range(20):
        for room in (public, private):
            await ann.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": f"secret {number}"})
    await thaw
    frozen.send_signal(signal.SIGCONT)

    assert await readers["mallory"].close_code() == 4403
    await until(lambda: len(texts(readers["ben"])) == 40, ANSWER_MAX_S)
    await asyncio.sleep(QUIET_S)
    assert texts(readers["mallory"]) == []
    assert texts(readers["eve"]) == []


# A lost reply, and its owner killed -----------------------------------------------------------------------------------


async def test_reply_lost_with_its_killed_owner_is_repeated_by_the_next(
    amqp_url: str, mongodb_uri: str, database_name: str, stack: AsyncExitStack
) -> None:
    broker = await stack.enter_async_context(lossy_broker(amqp_url))
    first, second = (chat_process(amqp_url, mongodb_uri, database_name, stack) for _ in range(2))
    await first.start()
    url = await stack.enter_async_context(gateway_alone(broker.url))
    room = await RestClient(url, "ann").create_room()
    ann = await stack.enter_async_context(await LiveClient.as_user(url, "ann"))
    await ann.ask("subscribe", channel="chatroom", chatroomId=room)
    broker.loses = lambda body: b"text-once" in body
    sending = asyncio.create_task(send_until_acked(ann, room))
    await until(lambda: broker.lost > 0)
    await first.end(signal.SIGKILL)
    broker.loses = lambda body: False
    await second.start(until_ready=False)
    ack = await sending
    assert ack["data"].get("repeated") or ack["data"]["seq"] == 1
    assert await ann.data("chat:message", timeout_s=ANSWER_MAX_S)
    await asyncio.sleep(QUIET_S)
    assert texts(ann) == []
    [stored] = await RestClient(url, "ann").data("GET", f"/v1/chatrooms/{room}/messages")
    assert (stored["id"], stored["message"]) == (ack["data"]["messageId"], "text-once")


async def send_until_acked(client: LiveClient, room: str) -> Frame:
    """Send one message, as clients do: again under its clientMessageId after UNAVAILABLE."""
    async with asyncio.timeout(ANSWER_MAX_S):
        while True:
            answer = await client.ask("chat:send", chatroomId=room, message="text-once", clientMessageId="c-1")
            if answer["type"] == "chat:ack":
                return answer
            assert answer["data"]["code"] == "UNAVAILABLE", answer


# A lease that is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "effect",
    [
        RefuseCommand(),
        RefuseCommand(13, "Unauthorized"),
        FailWriteConcern(100, "UnsatisfiableWriteConcern"),
        CutReply(),
    ],
    ids=["stepped down", "unauthorized", "no majority", "cut"],
)
async def test_process_whose_first_lease_is_refused_serves_or_ends(
    amqp_url: str, mongodb_uri: str, database_name: str, stack: AsyncExitStack, effect: Effect
) -> None:
    """A process that neither renews its lease nor ends would keep its partitions from everybody."""
    proxy = await stack.enter_async_context(database_proxy(mongodb_uri))
    refused = proxy.inject(effect, "update", collection="chat_leases", times=1)
    process = chat_process(amqp_url, proxy.uri, database_name, stack)
    await process.start(until_ready=False)
    await refused.hit(timeout_s=END_MAX_S)
    renewals = proxy.seen["update", "chat_leases"]
    await until(lambda: process.exit_code is not None or proxy.seen["update", "chat_leases"] > renewals + 2, END_MAX_S)
    if process.exit_code is None:
        await process.ready()
        assert await asyncio.wait_for(process.end(signal.SIGTERM), STOP_MAX_S) == 0
    else:
        assert process.exit_code == 1


async def test_process_waits_for_a_database_that_refuses_its_indexes(
    amqp_url: str, mongodb_uri: str, database_name: str, stack: AsyncExitStack
) -> None:
    """It neither ends, to be restarted again and again, nor serves without them."""
    proxy = await stack.enter_async_context(database_proxy(mongodb_uri))
    refused = proxy.inject(RefuseCommand(13, "Unauthorized"), "createIndexes")
    process = chat_process(amqp_url, proxy.uri, database_name, stack)
    await process.start(until_ready=False)
    await refused.hit(4, timeout_s=END_MAX_S)
    assert process.exit_code is None
    refused.remove()
    await process.ready()
