"""Pages and replays of megabytes: bounded for each user, and nobody else waits for them."""

import asyncio
import itertools
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aiohttp
import pytest

from shared.byte_budget import PATIENCE_S, WAITING_PER_USER_MAX
from tests.support.infrastructure import Infrastructure
from tests.support.live_client import LiveClient, RestClient
from tests.support.services import chat_service, gateway_alone
from tests.support.tokens import mint
from tests.support.waiting import until

MESSAGES = 100
TEXT = "x" * 60_000
RATE = 100_000
ROOMS = 100
ACK_MAX_S = 2.0


class LargeRoom:
    """A system with one room whose newest page has 6 MB, and a member who reads it."""

    def __init__(self, url: str, room: str) -> None:
        self.url = url
        self.room = room
        self.path = f"/v1/chatrooms/{room}/messages?limit={MESSAGES}"

    async def read(self, reader: RestClient) -> tuple[int, int]:
        """Return the status of a read, and the number of messages."""
        status, body = await reader.call("GET", self.path)
        return status, len(body["data"]) if status == 200 else 0


@pytest.fixture(scope="module")
async def large_room(infrastructure: Infrastructure) -> AsyncIterator[LargeRoom]:
    async with (
        chat_service(
            infrastructure.amqp_url, infrastructure.mongodb_uri, "large_reads", rate_limit_messages_per_minute=RATE
        ),
        gateway_alone(infrastructure.amqp_url, rate_limit_messages_per_minute=RATE) as url,
    ):
        room = await RestClient(url, "writer").create_room()
        async with await LiveClient.as_user(url, "writer") as writer:
            for _ in range(MESSAGES):
                assert (await writer.ask("chat:send", chatroomId=room, message=TEXT))["type"] == "chat:ack"
        yield LargeRoom(url, room)


async def test_reads_of_one_user_do_not_hold_up_another_room(large_room: LargeRoom) -> None:
    reader = RestClient(large_room.url, "reader")
    other_room = await RestClient(large_room.url, "ann").create_room()
    async with await LiveClient.as_user(large_room.url, "ann") as ann:
        reading = asyncio.gather(*(large_room.read(reader) for _ in range(6)))
        slowest_s = 0.0
        while not reading.done():
            begun_s = time.monotonic()
            assert (await ann.ask("chat:send", chatroomId=other_room, message="x"))["type"] == "chat:ack"
            slowest_s = max(slowest_s, time.monotonic() - begun_s)
    assert set(await reading) == {(200, MESSAGES)}
    assert 0 < slowest_s < ACK_MAX_S


async def test_reads_of_one_user_beyond_the_bound_are_refused_at_once(large_room: LargeRoom) -> None:
    reader = RestClient(large_room.url, "greedy")
    results = Counter(
        status
        for status, _ in await asyncio.gather(*(large_room.read(reader) for _ in range(2 * WAITING_PER_USER_MAX)))
    )
    assert results[429] >= WAITING_PER_USER_MAX - 1
    assert set(results) <= {200, 429, 503}
    assert await large_room.read(RestClient(large_room.url, "modest")) == (200, MESSAGES)


async def test_unread_answer_makes_way_for_the_next_read(large_room: LargeRoom) -> None:
    parts = urlsplit(large_room.url)
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect((parts.hostname, parts.port))
        idle.sendall(
            f"GET {large_room.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint('idle')}\r\n\r\n".encode()
        )
        idle.setblocking(False)
        await until(lambda: _has_data(idle))
        async with asyncio.timeout(PATIENCE_S + ACK_MAX_S):
            statuses = [await large_room.read(RestClient(large_room.url, "idle")) for _ in range(2)]
        assert statuses == [(200, MESSAGES)] * 2
        await until(lambda: _is_reset(idle))


def _is_reset(idle: socket.socket) -> bool:
    try:
        while idle.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return True


def _has_data(idle: socket.socket) -> bool:
    try:
        return bool(idle.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


async def test_small_read_does_not_wait_for_pages(large_room: LargeRoom) -> None:
    await RestClient(large_room.url, "quick").create_room()
    readers = [RestClient(large_room.url, f"reader {number}") for number in range(12)]
    reading = asyncio.gather(*(large_room.read(reader) for reader in readers))
    begun_s = time.monotonic()
    assert (await RestClient(large_room.url, "quick").call("GET", f"/v1/chatrooms/{large_room.room}"))[0] == 200
    took_s = time.monotonic() - begun_s
    assert not reading.done()
    assert took_s < ACK_MAX_S
    await reading


async def test_head_of_a_page_holds_nothing(large_room: LargeRoom) -> None:
    async with aiohttp.ClientSession() as session:  # keeps the connection, and with it the answer
        for _ in range(2):
            head = await session.head(
                f"{large_room.url}{large_room.path}", headers={"Authorization": f"Bearer {mint('heads')}"}
            )
            assert (head.status, int(head.headers["Content-Length"]) > MESSAGES * len(TEXT)) == (200, True)
        begun_s = time.monotonic()
        assert await large_room.read(RestClient(large_room.url, "heads")) == (200, MESSAGES)
        assert time.monotonic() - begun_s < PATIENCE_S


async def test_large_replay_arrives_whole_and_in_order_before_what_follows(large_room: LargeRoom) -> None:
    async with (
        await LiveClient.as_user(large_room.url, "resumer") as resumer,
        await LiveClient.as_user(large_room.url, "writer") as writer,
    ):
        await resumer.send("subscribe", channel="chatroom", chatroomId=large_room.room, since=0)
        subscribed = await resumer.data("subscribed")
        assert (subscribed["recovered"], subscribed["replayed"]) == (True, MESSAGES)
        await writer.ask("chat:send", chatroomId=large_room.room, message="after")
        await until(lambda: sum(frame["type"] == "chat:message" for frame in resumer.frames) > MESSAGES)
        seqs = [frame["data"]["seq"] for frame in resumer.frames if frame["type"] == "chat:message"]
        assert seqs == list(range(1, MESSAGES + 2))


async def test_many_rooms_resume_without_a_refusal(large_room: LargeRoom) -> None:
    operator = RestClient(large_room.url, "operator")
    rooms = [await operator.create_room() for _ in range(ROOMS)]
    async with await LiveClient.as_user(large_room.url, "operator") as writer:
        for room, _ in itertools.product(rooms, range(5)):
            assert (await writer.ask("chat:send", chatroomId=room, message="hello"))["type"] == "chat:ack"
    entries = [{"channel": "chatroom", "chatroomId": room, "since": 0} for room in rooms]
    clients = [await LiveClient.open(large_room.url) for _ in range(5)]
    async with AsyncExitStack() as stack:
        for number, client in enumerate(clients):
            await stack.enter_async_context(client)
            await client.send("auth", token=mint(f"resumer {number}"), subscriptions=entries)
        for client in clients:
            await until(lambda client=client: count(client, "subscribed") == ROOMS)  # type: ignore[misc]
            assert (count(client, "error"), count(client, "chat:message")) == (0, 5 * ROOMS)


def count(client: LiveClient, type_: str) -> int:
    return sum(frame["type"] == type_ for frame in client.frames)
