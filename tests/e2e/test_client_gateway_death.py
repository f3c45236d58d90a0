"""A gateway behind the common port is killed: this project's clients miss nothing, the published client reconnects."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import aiohttp

from tests.e2e.test_whole_system import GATEWAYS, all_ready, eventually, no_sockets_left, sockets_of
from tests.support.client_kinds import (
    ClientUnderTest,
    Connect,
    WebClient,
    data_of,
    node_host,
    python_client,
    seen,
    web_client,
)
from tests.support.local_system import LocalSystem
from tests.support.people import Person, people
from tests.support.tokens import mint
from tests.support.waiting import until

TIMEOUT_S = 60.0
TRIES = 60
MESSAGES = 40
KILLED_AFTER = 10
PAUSE_S = 0.05

Kind = TypeVar("Kind", ClientUnderTest, WebClient)


async def one_on_each(system: LocalSystem, make: Callable[[], Awaitable[Kind]]) -> list[Kind]:
    """Open clients until each gateway has one, the first gateway the first client. The kernel distributes them."""
    found: dict[str, Kind] = {}
    for _ in range(TRIES):
        before = {name: await sockets_of(system, name) for name in GATEWAYS}
        client = await make()
        await seen(client, "auth:ok")
        (name,) = [name for name in GATEWAYS if await sockets_of(system, name) > before[name]]
        found.setdefault(name, client)
        if len(found) == len(GATEWAYS):
            return [found[name] for name in GATEWAYS]
    raise AssertionError(f"{TRIES} sockets all came to one gateway")


async def write(person: Person, room: str, number: int) -> None:
    """Write one message over REST, retrying under one clientMessageId until it is stored."""
    body = {"message": f"m{number}", "clientMessageId": f"m{number}"}
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                await person.data("POST", f"/v1/chatrooms/{room}/messages", json=body)
                return
            except (aiohttp.ClientError, AssertionError):
                await asyncio.sleep(PAUSE_S)


async def test_killed_gateway_loses_nothing_for_clients(
    system: LocalSystem,
) -> None:
    entries = system.entries()
    meet = people(entries["GATEWAY_URL"])
    writer = meet("writer")
    room = await writer.create_room()
    await no_sockets_left(system)
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(node_host(GATEWAY_WS_URL=entries["GATEWAY_WS_URL"]))
        ours: list[ClientUnderTest] = []
        for connect in (python_client, web_client(host)):

            async def make(connect: Connect = connect) -> ClientUnderTest:
                return await stack.enter_async_context(connect(entries["GATEWAY_URL"], mint(meet("ours").id)))

            ours += await one_on_each(system, make)
        published = await one_on_each(system, lambda: host.make("published", mint(meet("published").id)))
        for client in ours:
            await client.subscribe("chatroom", chatroomId=room)
        for each in published:
            await each.subscribe("chatroom", chatroomId=room)
            await seen(each, "subscribed")
        sending: list[asyncio.Task[Any]] = []
        for number in range(MESSAGES):
            await write(writer, room, number)
            sender = ours[number % len(ours)]
            sending.append(asyncio.create_task(sender.send_message(room, f"own {number}")))
            if number == KILLED_AFTER:
                system.kill(GATEWAYS[0])
        async with asyncio.timeout(TIMEOUT_S):
            acks = await asyncio.gather(*sending)
        total = MESSAGES + len(acks)
        for client in ours:
            await seen(client, "chat:message", total)
        hit, spared = published
        await seen(hit, "auth:ok", 2)
        stored = await writer.data("GET", f"/v1/chatrooms/{room}/messages?limit=100")
        history = [message["id"] for message in reversed(stored)]
        assert len(history) == total
        for client in ours:
            assert [message["messageId"] for message in data_of(client, "chat:message")] == history
            assert data_of(client, "missed") == []
        assert [message["messageId"] for message in data_of(spared, "chat:message")] == history
        begun = [message["messageId"] for message in data_of(hit, "chat:message")]
        assert begun == history[: len(begun)]
        assert KILLED_AFTER <= len(begun) < total  # it misses later messages unless it subscribes again
    await until(lambda: system.entries()[f"{GATEWAYS[0]}_PID"] != entries[f"{GATEWAYS[0]}_PID"], TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        await eventually(lambda: all_ready(system))
