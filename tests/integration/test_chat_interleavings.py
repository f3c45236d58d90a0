"""Interleavings of owners, writes and reads that chance does not find, forced from outside on real processes.

Each chat_service reaches the database through its own proxy, which holds, fails or falsifies commands at the
decisive moment. The tests know nothing of the services' inside: they find a room's commands by the room's id in them,
and assert only what clients are promised.
"""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.database_proxy import (
    DatabaseProxy,
    DelayReply,
    FailWriteConcern,
    HoldCommand,
    database_proxy,
    hiding,
)
from tests.support.delivery_loss import LossyBroker, lossy_broker
from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.mongo_wire import WireCommand
from tests.support.service_process import Process
from tests.support.services import gateway_alone
from tests.support.waiting import until, until_async

WRITES = ("insert", "update", "findAndModify", "delete")
READS = ("find", "aggregate", "getMore")
RATE = 1_000_000
ROOMS = 8
HELD_S = 2.0
FROZEN_OWNER_S = 20.0  # at most, until the rooms of a frozen owner have another one
ANSWER_MAX_S = 30.0
ISOLATED_S = 9.0
QUIET_S = 1.5


@dataclass
class Owners:
    """Replicas of chat_service, each behind its own database proxy, and two gateways."""

    urls: list[str]
    proxies: list[DatabaseProxy]
    processes: list[Process]
    broker: LossyBroker
    stack: AsyncExitStack = field(repr=False)

    async def client(self, user: str, gateway_number: int = 0) -> LiveClient:
        """Return an authenticated socket."""
        return await self.stack.enter_async_context(await LiveClient.as_user(self.urls[gateway_number], user))

    def rest(self, user: str) -> RestClient:
        """Return REST calls as a user."""
        return RestClient(self.urls[0], user)


@pytest.fixture
async def owners(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[Owners]:
    """One running replica, and one more to start. The second gateway can lose deliveries."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(lossy_broker(amqp_url))
        proxies = [await stack.enter_async_context(database_proxy(mongodb_uri)) for _ in range(2)]
        processes = [
            Process(
                "chat_service",
                {
                    "AMQP_URL": amqp_url,
                    "MONGODB_URI": proxy.uri,
                    "MONGODB_DATABASE": database_name,
                    "ADMIN_HOST": "127.0.0.1",
                    "RATE_LIMIT_MESSAGES_PER_MINUTE": str(RATE),
                },
            )
            for proxy in proxies
        ]
        await processes[0].start()
        stack.push_async_callback(_end, processes)
        urls = [
            await stack.enter_async_context(gateway_alone(url, rate_limit_messages_per_minute=RATE))
            for url in (amqp_url, broker.url)
        ]
        async with AsyncExitStack() as clients:
            yield Owners(urls, proxies, processes, broker, clients)
            for proxy in proxies:
                proxy.clear()


async def _end(processes: Sequence[Process]) -> None:
    for process in processes:
        if process.is_started:
            process.send_signal(signal.SIGCONT)
            await process.end(signal.SIGKILL)


def concerns(rooms: Sequence[str], *words: str) -> Callable[[WireCommand], bool]:
    """Return a predicate: the command names one of the rooms and all of the words."""

    def predicate(command: WireCommand) -> bool:
        text = str(command.document)
        return any(room in text for room in rooms) and all(word in text for word in words)

    return predicate


async def history(rest: RestClient, room: str) -> list[Frame]:
    """Return a room's messages, oldest first."""
    items: list[Frame] = []
    while True:
        after = items[-1]["seq"] if items else 0
        page = await rest.data("GET", f"/v1/chatrooms/{room}/messages?after={after}&limit=100")
        if not page:
            return items
        items += sorted(page, key=lambda item: int(item["seq"]))


def shown(client: LiveClient, room: str) -> list[Frame]:
    """Return the messages of a room that a socket received so far."""
    frames = [frame["data"] for frame in client.frames if frame["type"] == "chat:message"]
    return [data for data in frames if data["chatroomId"] == room]


# 01: a hand-over while writes are in hand --------------------------------------------------------------------------


class OrderedTalker:
    """A socket that sends numbered messages to two rooms in turn and waits for nothing."""

    def __init__(self, client: LiveClient, name: str, rooms: Sequence[str]) -> None:
        self._client = client
        self._name = name
        self._rooms = rooms
        self.sent = 0

    async def talk(self, stop: asyncio.Event) -> None:
        """Send until stopped."""
        for room in itertools.cycle(self._rooms):
            if stop.is_set():
                return
            self.sent += 1
            await self._client.send("chat:send", id=self.sent, chatroomId=room, message=f"{self._name} {self.sent}")
            await asyncio.sleep(0.01)  # the rate of the load

    async def answers(self) -> list[Frame]:
        """Return the answer to every message."""
        return [await self._client.take(lambda frame: "id" in frame, timeout_s=ANSWER_MAX_S) for _ in range(self.sent)]


async def test_sends_of_one_socket_keep_their_order_over_handovers(owners: Owners) -> None:
    """A replica joins and leaves while writes are slow, so that a batch is in hand at each hand-over."""
    operator = owners.rest("operator")
    rooms = [await operator.create_room() for _ in range(ROOMS)]
    talkers = [
        OrderedTalker(await owners.client(f"talker{number}", number % 2), f"talker{number}", rooms[number * 2 :][:2])
        for number in range(ROOMS // 2)
    ]
    for proxy in owners.proxies:
        proxy.inject(DelayReply(0.1), *WRITES, where=concerns(rooms))
    stop = asyncio.Event()
    talking = [asyncio.create_task(talker.talk(stop)) for talker in talkers]
    for _ in range(2):
        await owners.processes[1].start()
        await asyncio.sleep(HELD_S)
        await owners.processes[1].end(signal.SIGTERM)
    stop.set()
    await asyncio.gather(*talking)
    answers = [answer for talker in talkers for answer in await talker.answers()]
    acked = {answer["data"]["messageId"] for answer in answers if answer["type"] == "chat:ack"}
    stored: list[Frame] = []
    for room in rooms:
        messages = await history(operator, room)
        numbers = [int(message["message"].split()[1]) for message in messages]
        assert numbers == sorted(numbers), f"{room}: {numbers}"
        assert len(numbers) == len(set(numbers))
        stored += messages
    assert acked <= {message["id"] for message in stored}
    assert len(acked) > len(answers) / 2


# 02: a removal in hand while another owner sends for the removed member ---------------------------------------------


async def test_removed_member_neither_writes_nor_reads_after_the_answer(owners: Owners) -> None:
    """The first owner's write of the removal is held until a second owner has stored a message of the member.

    A living owner hands its rooms over only after the commit in hand; so the first one is frozen.
    """
    operator = owners.rest("operator")
    room = await operator.create_room("Secret", "private", memberIds=["mallory"])
    mallory = await owners.client("mallory", 1)
    assert (await mallory.ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "subscribed"
    assert (await mallory.ask("chat:send", chatroomId=room, message="before"))["type"] == "chat:ack"
    held = owners.proxies[0].inject(HoldCommand(), "insert", where=concerns([room], "mallory"))
    stored = owners.proxies[1].inject(DelayReply(0.0), "insert", where=concerns([room], "mallory"))
    first_try = asyncio.create_task(operator.call("DELETE", f"/v1/chatrooms/{room}/members/mallory"))
    await held.hit()
    owners.processes[0].send_signal(signal.SIGSTOP)
    assert (await asyncio.wait_for(first_try, ANSWER_MAX_S))[0] == 503  # before another owner may decide it
    await owners.processes[1].start(until_ready=False)
    speaking = Speaking(mallory, room)
    talking = asyncio.create_task(speaking.run())
    await stored.done(timeout_s=FROZEN_OWNER_S)
    held.remove()
    held.release()
    owners.processes[0].send_signal(signal.SIGCONT)
    await remove(operator, room, "mallory")
    speaking.is_removed = True
    await asyncio.sleep(QUIET_S)
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    mallory.frames.clear()
    refused = await mallory.ask("subscribe", channel="chatroom", chatroomId=room)
    assert refused["type"] == "error", refused
    await operator.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "for members"})
    await asyncio.sleep(QUIET_S)
    assert not shown(mallory, room)
    texts = [message["message"] for message in await history(operator, room)]
    assert set(texts) & speaking.before, "the second owner stored nothing of the member"
    assert speaking.after and not set(texts) & speaking.after, f"stored after the removal: {texts}"


async def remove(rest: RestClient, room: str, user: str) -> None:
    """Remove a member, again and again until it is answered as done."""

    async def answer() -> int:
        return (await rest.call("DELETE", f"/v1/chatrooms/{room}/members/{user}"))[0]

    await until_async(answer, lambda status: status in (200, 404), ANSWER_MAX_S)


class Speaking:
    """A member that keeps sending to a room; `after` holds the messages sent after its removal was answered."""

    def __init__(self, client: LiveClient, room: str) -> None:
        self.before: set[str] = set()
        self.after: set[str] = set()
        self.is_removed = False
        self._client = client
        self._room = room

    async def run(self) -> None:
        """Send until cancelled."""
        for number in itertools.count():
            text = f"mallory {number}"
            (self.after if self.is_removed else self.before).add(text)
            await self._client.send("chat:send", chatroomId=self._room, message=text)
            await asyncio.sleep(0.05)  # the rate of the load


# 04: a write that no majority confirmed ----------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [WRITES, ("insert",)], ids=["all writes", "inserts"])
async def test_message_without_majority_is_neither_acked_nor_shown(owners: Owners, writes: tuple[str, ...]) -> None:
    """An isolated primary takes writes, confirms none, and answers majority reads as of before its isolation."""
    room = await owners.rest("ann").create_room()
    ann, ben = await owners.client("ann"), await owners.client("ben", 1)
    await ben.ask("subscribe", channel="chatroom", chatroomId=room)
    assert (await ann.ask("chat:send", chatroomId=room, message="before", clientMessageId="c0"))["type"] == "chat:ack"
    await ben.next("chat:message")
    proxy = owners.proxies[0]
    unconfirmed: set[Any] = set()

    def takes(command: WireCommand) -> bool:
        unconfirmed.update(document["_id"] for document in command.document.get("documents", []))
        return concerns([room])(command)

    proxy.inject(FailWriteConcern(after_s=0.3), *writes, where=takes)
    proxy.inject(hiding(lambda document: document.get("_id") in unconfirmed), *READS, where=reads_majority)
    answers = await resend(ann, room, "c1", ISOLATED_S)
    assert "chat:ack" not in answers, answers
    assert shown(ben, room) == []
    proxy.clear()
    answers = await resend(ann, room, "c1", ANSWER_MAX_S)
    assert answers[-1] == "chat:ack"
    assert (await ben.data("chat:message"))["message"] == "sell"
    await asyncio.sleep(QUIET_S)
    assert shown(ben, room) == []
    assert [message["message"] for message in await history(owners.rest("ann"), room)] == ["before", "sell"]


def reads_majority(command: WireCommand) -> bool:
    """Return whether a read uses read concern majority."""
    return bool(command.document.get("readConcern", {}).get("level") == "majority")


async def resend(client: LiveClient, room: str, client_message_id: str, seconds: float) -> list[str]:
    """Send one message until it is acked or the time is over, as the clients do, and return the types of answers."""
    answers: list[str] = []
    deadline_s = asyncio.get_running_loop().time() + seconds
    while "chat:ack" not in answers and asyncio.get_running_loop().time() < deadline_s:
        frame = await client.ask("chat:send", chatroomId=room, message="sell", clientMessageId=client_message_id)
        answers.append(frame["type"])
        await asyncio.sleep(0.2)
    return answers


# 16: a stale answer to the question for a gap ------------------------------------------------------------------------


async def test_stale_answer_to_a_gap_does_not_skip_the_message(owners: Owners) -> None:
    """A gateway loses one line, and a stale primary answers without that message while the gateway asks for it."""
    room = await owners.rest("ann").create_room()
    ann, ben = await owners.client("ann"), await owners.client("ben", 1)
    await ben.ask("subscribe", channel="chatroom", chatroomId=room)

    async def send(text: str) -> None:
        assert (await ann.ask("chat:send", chatroomId=room, message=text))["type"] == "chat:ack"

    await send("one")
    assert (await ben.data("chat:message"))["message"] == "one"
    stale = owners.proxies[0].inject(hiding(lambda document: "text-two" in str(document)), *READS)
    owners.broker.loses = lambda body: b"text-two" in body
    await send("text-two")
    await until(lambda: owners.broker.lost > 0)
    owners.broker.loses = lambda body: False
    await send("three")
    await asyncio.sleep(HELD_S)
    stale.remove()
    await send("four")
    texts = [(await ben.data("chat:message", timeout_s=ANSWER_MAX_S))["message"] for _ in range(3)]
    assert texts == ["text-two", "three", "four"]
