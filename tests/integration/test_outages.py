"""Outages of a gateway's dependencies: callers fail fast, nothing piles up, nothing is done twice or late."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aio_pika
import pytest

from gateway.live.in_flight import IN_FLIGHT_MAX
from shared.bus.topology import DEAD
from shared.commands.body import COMMANDS_MAX
from tests.chaos.settle import history
from tests.chaos.traffic import quiet_connections
from tests.support.infrastructure import Infrastructure
from tests.support.live_client import LiveClient, RestClient
from tests.support.services import chat_service, gateway_alone
from tests.support.waiting import until

READS_REFUSED = 5
ANSWER_MAX_S = 6.0  # the deadline of a command, with a margin
FAST_S = 1.5
RECOVERY_MAX_S = 5.0


async def depth(amqp_url: str, name: str) -> int:
    """Return the number of messages in a queue."""
    async with await aio_pika.connect(amqp_url) as connection:
        queue = await (await connection.channel()).get_queue(name)
        return queue.declaration_result.message_count or 0


async def test_expired_send_is_refused_and_never_performed(amqp_url: str, mongodb_uri: str, database_name: str) -> None:
    async with AsyncExitStack() as stack:
        async with chat_service(amqp_url, mongodb_uri, database_name):
            url = await stack.enter_async_context(gateway_alone(amqp_url, request_timeout_s=1.0))
            room = await RestClient(url, "ann").create_room()
        async with await LiveClient.as_user(url, "ann") as client:
            refused = await client.ask("chat:send", chatroomId=room, message="late", clientMessageId="k")
            assert (refused["data"]["code"], refused["data"]["retryable"]) == ("UNAVAILABLE", True)
            async with chat_service(amqp_url, mongodb_uri, database_name):
                acked = await client.ask("chat:send", chatroomId=room, message="in time", clientMessageId="k")
                assert (acked["type"], acked["data"]["seq"]) == ("chat:ack", 1)
                stored = await RestClient(url, "ann").data("GET", f"/v1/chatrooms/{room}/messages")
    assert [message["message"] for message in stored] == ["in time"]
    assert await depth(amqp_url, DEAD) == 0


async def test_commands_beyond_the_bound_are_refused_at_once(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with AsyncExitStack() as stack:
        async with chat_service(amqp_url, mongodb_uri, database_name):
            url = await stack.enter_async_context(gateway_alone(amqp_url))
        clients = [await stack.enter_async_context(await LiveClient.as_user(url, f"u{number}")) for number in range(18)]
        for client, number in itertools.product(clients, range(IN_FLIGHT_MAX)):  # no owner takes them
            await client.send("chat:send", chatroomId="room_1", message="hello", id=number)
        refused = [frame for client in clients for frame in await _errors_within(client, FAST_S)]
        assert len(refused) >= len(clients) * IN_FLIGHT_MAX - 2 * COMMANDS_MAX  # one body in flight, one that gathers
        assert {frame["data"]["code"] for frame in refused} == {"UNAVAILABLE"}
        assert all(500 <= frame["data"]["retryAfterMs"] <= 1_500 for frame in refused)
        status, body = await RestClient(url, "ann").call("POST", "/v1/chatrooms/room_1/messages", json={"message": "x"})
        assert (status, body["error"]["code"]) == (503, "UNAVAILABLE")
        assert 500 <= body["error"]["retryAfterMs"] <= 1_500


async def _errors_within(client: LiveClient, timeout_s: float) -> list[dict[str, Any]]:
    """Return the errors that a client received before a pong, which the gateway sends while commands wait."""
    async with asyncio.timeout(timeout_s):
        await client.barrier()
    return [frame for frame in client.frames if frame["type"] == "error"]


@dataclass
class Seen:
    """A client's record: when each send was first tried and answered, with what result, and how long reads took."""

    answers: list[tuple[float, float, str]] = field(default_factory=list)
    acked: list[str] = field(default_factory=list)
    reads: list[tuple[float, float, int]] = field(default_factory=list)

    def slowest_s(self, code: str) -> float:
        """Return the longest time to an answer with this code."""
        return max((until_s - since_s for since_s, until_s, what in self.answers if what == code), default=0.0)

    def refused_s(self, since_s: float) -> list[float]:
        """Return the duration of each read that began after `since_s` and was answered with 503."""
        return [took_s for at_s, took_s, status in self.reads if at_s > since_s and status == 503]

    def first_ack_s(self, since_s: float) -> float:
        """Return the seconds from `since_s` until the first send at or after it was acknowledged."""
        return min(until_s - since_s for begun_s, until_s, what in self.answers if what == "ok" and begun_s >= since_s)


async def keep_sending(client: LiveClient, room: str, seen: Seen) -> None:
    """Send a message every 50 ms until cancelled; repeat each with its clientMessageId until it is acked."""

    async def send(key: str) -> None:
        while True:
            since_s = time.monotonic()
            answer = await client.ask("chat:send", chatroomId=room, message=key, clientMessageId=key)
            code = answer["data"]["code"] if answer["type"] == "error" else "ok"
            seen.answers.append((since_s, time.monotonic(), code))
            if code == "ok":
                seen.acked.append(key)
                return
            assert answer["data"]["retryable"], answer
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as sending:
        for number in itertools.count():
            if len(seen.answers) < 10_000:
                sending.create_task(send(f"k{number}"))
            await asyncio.sleep(0.05)


async def keep_reading(rest: RestClient, room: str, seen: Seen) -> None:
    """Read the room's history every 100 ms, until cancelled."""
    while True:
        since_s = time.monotonic()
        status, body = await rest.call("GET", f"/v1/chatrooms/{room}/messages?limit=1")
        seen.reads.append((since_s, time.monotonic() - since_s, status))
        assert body["success"] == (status == 200), body
        await asyncio.sleep(0.1)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Break the harness's own connections too."""
    with quiet_connections():
        yield


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("what", ["broker killed", "broker out of memory", "broker out of disk", "database killed"])
async def test_outage_is_reported_in_time_and_service_resumes(
    infrastructure: Infrastructure, amqp_url: str, mongodb_uri: str, database_name: str, what: str
) -> None:
    async with (
        chat_service(amqp_url, mongodb_uri, database_name, rate_limit_messages_per_minute=100_000),
        gateway_alone(amqp_url, rate_limit_messages_per_minute=100_000) as url,
        await LiveClient.as_user(url, "ann") as client,
        await LiveClient.as_user(url, "bob") as listener,
    ):
        rest = RestClient(url, "ann")
        room = await rest.create_room()
        await listener.ask("subscribe", channel="chatroom", chatroomId=room)
        seen = Seen()
        working = [
            asyncio.create_task(work) for work in (keep_sending(client, room, seen), keep_reading(rest, room, seen))
        ]
        await until(lambda: len(seen.acked) > 10)
        await asyncio.to_thread(take_away, infrastructure, what)
        gone_s = time.monotonic()
        await until(lambda: len(seen.refused_s(gone_s)) > READS_REFUSED, 30.0)
        await asyncio.to_thread(bring_back, infrastructure, what)
        back_s = time.monotonic()
        await until(lambda: any(since_s >= back_s and code == "ok" for since_s, _, code in seen.answers), 30.0)
        await until(lambda: seen.reads[-1][2] == 200 and seen.reads[-1][0] > back_s, 30.0)
        reads_after_s = next(
            at_s + took_s - back_s for at_s, took_s, status in seen.reads if at_s + took_s > back_s and status == 200
        )
        assert not any(task.done() for task in working)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        refused = sorted(seen.refused_s(gone_s))
        print(
            f"{what}: slowest UNAVAILABLE {seen.slowest_s('UNAVAILABLE'):.2f} s; reads refused after"
            f" {refused[len(refused) // 2]:.2f} s, slowest {refused[-1]:.2f} s; once it was back: first read after"
            f" {reads_after_s:.2f} s, first ack after {seen.first_ack_s(back_s):.2f} s"
        )
        assert not client.is_closed
        assert seen.slowest_s("UNAVAILABLE") < ANSWER_MAX_S
        assert refused[len(refused) // 2] < FAST_S
        assert seen.first_ack_s(back_s) < RECOVERY_MAX_S
        assert reads_after_s < RECOVERY_MAX_S
        stored = [item.key for item in await history(rest, room)]
        assert len(stored) == len(set(stored))
        assert set(seen.acked) <= set(stored)
        await until(lambda: sum(frame["type"] == "chat:message" for frame in listener.frames) >= len(stored), 20.0)
        received = [frame["data"]["seq"] for frame in listener.frames if frame["type"] == "chat:message"]
        assert received == list(range(1, len(stored) + 1))


def take_away(infrastructure: Infrastructure, what: str) -> None:
    match what:
        case "broker killed":
            infrastructure.broker.kill()
        case "broker out of memory":
            infrastructure.broker.control("set_vm_memory_high_watermark", "absolute", "1")
        case "broker out of disk":
            infrastructure.broker.control("set_disk_free_limit", "1000000GB")
        case _:
            infrastructure.database.kill()


def bring_back(infrastructure: Infrastructure, what: str) -> None:
    match what:
        case "broker killed":
            infrastructure.broker.start()
        case "broker out of memory":
            infrastructure.broker.control("set_vm_memory_high_watermark", "absolute", "1GiB")
        case "broker out of disk":
            infrastructure.broker.control("set_disk_free_limit", "50MB")
        case _:
            infrastructure.database.start()
