"""Two chat_service replicas: live handover of partitions, one rate limit per user, profiles known to both."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
import structlog.testing
from structlog.typing import EventDict

from chat_service.partitions.rendezvous import share_of
from shared.bus.bus import Bus
from shared.bus.topology import EVENTS, PARTITIONS, partition_of
from shared.encoding import to_json
from shared.ids import Prefix, new_id
from shared.times import now_ms, to_iso
from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.services import chat_service, gateway_alone
from tests.support.waiting import until

ROOMS = 8
SETTLE_TIMEOUT_S = 15.0


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    """Collect log events; `partition_owned` shows who owns what."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
async def two(
    amqp_url: str, mongodb_uri: str, database_name: str, logged: list[EventDict]
) -> AsyncIterator[tuple[str, str]]:
    """Two gateways, and two replicas that share the partitions."""
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        chat_service(amqp_url, mongodb_uri, database_name),
        gateway_alone(amqp_url) as first,
        gateway_alone(amqp_url) as second,
    ):
        await until(lambda: are_shared_by_two(logged), SETTLE_TIMEOUT_S)
        yield first, second


def owned_by_node(logged: list[EventDict]) -> dict[str, set[int]]:
    """Return the partitions of each replica that has any, the older replica first."""
    owners: dict[int, tuple[int, str]] = {}
    owned: dict[str, set[int]] = {}
    for entry in logged:
        if entry["event"] == "partition_owned":
            owned[entry["node"]] = set()
            owners[entry["partition"]] = max(owners.get(entry["partition"], (0, "")), (entry["term"], entry["node"]))
    for partition, (_, node) in owners.items():
        owned[node].add(partition)
    return {node: partitions for node, partitions in owned.items() if partitions}


def assignments(logged: list[EventDict]) -> list[set[int]]:
    return list(owned_by_node(logged).values())


def are_shared_by_two(logged: list[EventDict]) -> bool:
    """Return whether two replicas own all partitions between them, each its share."""
    owned = owned_by_node(logged)
    return len(owned) == 2 and owned == {node: share_of(node, range(PARTITIONS), list(owned)) for node in owned}


def has_one_all(logged: list[EventDict]) -> bool:
    """Return whether one replica owns all partitions."""
    return assignments(logged) == [set(range(PARTITIONS))]


async def rooms_apart(url: str, logged: list[EventDict]) -> list[str]:
    """Return rooms of which either replica owns some."""
    rooms: list[str] = []
    caller = RestClient(url, "operator")
    first, second = assignments(logged)
    while len(rooms) < ROOMS or not ({partition_of(room) for room in rooms} & first):
        rooms.append(await caller.create_room())
        if len(rooms) == ROOMS and {partition_of(room) for room in rooms} <= first:
            rooms.pop()
    assert {partition_of(room) for room in rooms} & second
    return rooms


async def test_replicas_share_partitions_and_last_one_has_all(
    amqp_url: str, mongodb_uri: str, database_name: str, logged: list[EventDict]
) -> None:
    async with chat_service(amqp_url, mongodb_uri, database_name):
        await until(lambda: has_one_all(logged), SETTLE_TIMEOUT_S)
        async with chat_service(amqp_url, mongodb_uri, database_name):
            await until(lambda: are_shared_by_two(logged), SETTLE_TIMEOUT_S)
        await until(lambda: has_one_all(logged), SETTLE_TIMEOUT_S)


class Talker:
    """A user who sends one message after another, without waiting for acks."""

    def __init__(self, client: LiveClient, name: str) -> None:
        self.client = client
        self.name = name
        self.sent = 0

    async def talk(self, rooms: list[str], stop: asyncio.Event) -> None:
        for room in itertools.cycle(rooms):
            if stop.is_set():
                return
            self.sent += 1
            text = f"{self.name} {self.sent}"
            await self.client.send("chat:send", id=self.sent, chatroomId=room, message=text)
            await asyncio.sleep(0.02)  # the rate of the load

    async def acks(self) -> list[Frame]:
        """Return the answers to all sends; they arrive in any order, because rooms have different partitions."""
        return [await self.client.take(lambda frame: "id" in frame) for _ in range(self.sent)]


async def test_messages_survive_replica_changes(
    amqp_url: str, mongodb_uri: str, database_name: str, logged: list[EventDict]
) -> None:
    limits = {"rate_limit_messages_per_minute": 100_000}

    async with AsyncExitStack() as stack:
        remaining = AsyncExitStack()
        await remaining.enter_async_context(chat_service(amqp_url, mongodb_uri, database_name, **limits))
        first = await stack.enter_async_context(gateway_alone(amqp_url, **limits))
        second = await stack.enter_async_context(gateway_alone(amqp_url, **limits))
        rooms = [await RestClient(first, "operator").create_room() for _ in range(ROOMS)]
        clients = [
            await stack.enter_async_context(await LiveClient.as_user(url, name))
            for url, name in ((first, "ann"), (second, "ben"), (second, "watcher"))
        ]
        for room in rooms:
            await clients[-1].ask("subscribe", channel="chatroom", chatroomId=room)
        talkers = [Talker(client, name) for client, name in zip(clients, ("ann", "ben"), strict=False)]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as talking:
            for talker in talkers:
                talking.create_task(talker.talk(rooms, stop))
            for _ in range(2):
                next_one = AsyncExitStack()
                await next_one.enter_async_context(chat_service(amqp_url, mongodb_uri, database_name, **limits))
                await until(lambda: are_shared_by_two(logged), SETTLE_TIMEOUT_S)
                await remaining.aclose()
                await until(lambda: has_one_all(logged), SETTLE_TIMEOUT_S)
                remaining = next_one
            stop.set()
        stack.push_async_exit(remaining)
        acked = [(await talker.acks()) for talker in talkers]
        assert {frame["type"] for frames in acked for frame in frames} == {"chat:ack"}
        total = sum(talker.sent for talker in talkers)
        got = [await clients[-1].data("chat:message") for _ in range(total)]
        await clients[-1].barrier()
        assert [frame for frame in clients[-1].frames if frame["type"] == "chat:message"] == []
        places = {(frame["data"]["chatroomId"], frame["data"]["seq"]) for frames in acked for frame in frames}
        assert places == {(message["chatroomId"], message["seq"]) for message in got}
        for room in rooms:
            here = [message for message in got if message["chatroomId"] == room]
            assert [message["seq"] for message in here] == list(range(1, len(here) + 1))
            for talker in talkers:
                numbers = [int(message["message"].split()[1]) for message in here if message["userId"] == talker.name]
                assert numbers == sorted(numbers)
            history = await RestClient(first, "ann").data("GET", f"/v1/chatrooms/{room}/messages?limit=100")
            assert [message["id"] for message in reversed(history)] == [message["messageId"] for message in here[-100:]]


async def test_rate_limit_is_exact_across_replicas(two: tuple[str, str], logged: list[EventDict]) -> None:
    rooms = await rooms_apart(two[0], logged)
    async with (
        await LiveClient.as_user(two[0], "ann") as here,
        await LiveClient.as_user(two[1], "ann") as there,
        await LiveClient.as_user(two[1], "ben") as ben,
    ):
        answers = await asyncio.gather(
            *(
                (here, there)[number % 2].ask("chat:send", chatroomId=rooms[number % ROOMS], message="x")
                for number in range(150)
            )
        )
        assert sum(answer["type"] == "chat:ack" for answer in answers) == 100
        refused = [answer["data"] for answer in answers if answer["type"] == "error"]
        assert {data["code"] for data in refused} == {"RATE_LIMITED"}
        assert all(0 < data["retryAfterMs"] <= 60_000 for data in refused)
        assert (await ben.ask("chat:send", chatroomId=rooms[0], message="x"))["type"] == "chat:ack"


async def test_resent_messages_do_not_count_against_rate(two: tuple[str, str], logged: list[EventDict]) -> None:
    rooms = await rooms_apart(two[0], logged)
    async with await LiveClient.as_user(two[0], "ann") as ann:
        for number in range(150):
            fields = {"chatroomId": rooms[number % ROOMS], "message": "x", "clientMessageId": "same"}
            assert (await ann.ask("chat:send", **fields))["type"] == "chat:ack"


async def test_profile_change_reaches_both_replicas(
    amqp_url: str, two: tuple[str, str], logged: list[EventDict]
) -> None:
    rooms = await rooms_apart(two[0], logged)
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus, await LiveClient.as_user(two[0], "ann") as ann:
        await bus.wait_connected()
        for room in rooms:
            await ann.ask("subscribe", channel="chatroom", chatroomId=room)
        assert {await said_as(ann, room) for room in rooms} == {""}
        event = {
            "specversion": "1.0",
            "id": "evt_1",
            "source": "/services/users",
            "type": "user.updated",
            "time": to_iso(now_ms()),
            "data": {"userId": "ann", "firstName": "Anna"},
        }
        await bus.publish(EVENTS, "user.updated", to_json(event))
        deadline_s = time.monotonic() + 10.0
        while (names := {await said_as(ann, room) for room in rooms}) != {"Anna"}:
            assert time.monotonic() < deadline_s, names


async def said_as(client: LiveClient, room: str) -> str:
    """Return the first name shown with the client's next message."""
    ack = await client.ask("chat:send", chatroomId=room, message="x")
    assert ack["type"] == "chat:ack", ack
    message = await client.take(lambda frame: frame["data"].get("messageId") == ack["data"]["messageId"])
    return str(message["data"]["user"]["firstName"])
