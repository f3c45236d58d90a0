"""Lines that the broker loses between two healthy connections: the last of a room, and those dropped by a full queue.

The far gateway (or chat_service) reaches the broker through a proxy that loses chosen deliveries, or holds all of them
until a bounded queue of the real broker is full.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aio_pika
import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from chat_service.partitions import owned_partitions
from chat_service.storage import repair
from shared.bus import broker_connection, bus, echo
from shared.bus.delivery import Delivery, DeliveryKind, room_channel
from shared.bus.topology import DELIVERIES, OWNER_QUEUE, shard_key, shard_of
from shared.commands.body import decode_body
from tests.support.delivery_loss import LossyBroker, lossy_broker
from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.notifications import notifier_client
from tests.support.services import chat_service, gateway, notifier
from tests.support.waiting import until

QUEUE_MAX_BYTES = 200_000
FILLER_BYTES = 64_000
FILLERS = 500  # beyond what broker and sockets keep outside the queue
FILLERS_LAST = 10  # as many bytes as the queue holds, and more
SILENT_S = 60.0  # longer than a test: the connection stays, however long nothing is read from it
HEAD_S = 1.6
HELD_S = 1.0  # within a command's TTL


@dataclass
class Loss:
    """chat_service, notifier and two gateways; `broker` is in front of the far gateway, `worker` of chat_service."""

    near: str
    far: str
    broker: LossyBroker
    worker: LossyBroker
    amqp_url: str
    database_url: str
    database_name: str
    stack: AsyncExitStack = field(repr=False)

    async def client(self, url: str, user: str) -> LiveClient:
        """Return an authenticated socket."""
        return await self.stack.enter_async_context(await LiveClient.as_user(url, user))

    async def reader(self, user: str, room: str) -> LiveClient:
        """Return a socket of the far gateway that is subscribed to a room."""
        client = await self.client(self.far, user)
        assert (await client.ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "subscribed"
        return client

    async def owner_queue(self) -> str:
        """Return the queue of chat_service."""
        client: AsyncIOMotorClient[Frame] = AsyncIOMotorClient(self.database_url)
        found = await client[self.database_name]["partition_owners"].find_one()
        client.close()
        assert found is not None
        return str(found["queue"])

    async def fill(self, exchange: str, key: str, count: int, size_bytes: int = FILLER_BYTES) -> None:
        """Publish lines that no gateway needs."""
        line = Delivery(room_channel("nobody"), DeliveryKind.TRANSIENT, 0, "", b"x" * size_bytes).to_line()
        async with await aio_pika.connect(self.amqp_url) as connection:
            channel = await connection.channel(publisher_confirms=False)
            target = channel.default_exchange if not exchange else await channel.get_exchange(exchange, ensure=False)
            for _ in range(count):
                await target.publish(aio_pika.Message(line), key)


@pytest.fixture
async def loss(
    amqp_url: str, mongodb_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Loss]:
    bound = {"x-max-length-bytes": QUEUE_MAX_BYTES}
    monkeypatch.setattr(bus, "PRIVATE_QUEUE", bound)
    monkeypatch.setattr(echo, "PRIVATE_QUEUE", bound)
    monkeypatch.setattr(owned_partitions, "OWNER_QUEUE", OWNER_QUEUE | bound)
    monkeypatch.setattr(repair, "ANNOUNCE_WITHIN_MS", 0)  # else a claim at the start announces heads too
    monkeypatch.setattr(echo, "TIMEOUT_S", SILENT_S)
    monkeypatch.setattr(broker_connection, "HEARTBEAT_S", round(SILENT_S))
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(lossy_broker(amqp_url))
        worker = await stack.enter_async_context(lossy_broker(amqp_url))
        await stack.enter_async_context(chat_service(worker.url, mongodb_uri, database_name))
        await stack.enter_async_context(notifier(amqp_url, mongodb_uri, database_name))
        near, far = [await stack.enter_async_context(gateway(url)) for url in (amqp_url, broker.url)]
        async with AsyncExitStack() as clients:
            yield Loss(near, far, broker, worker, amqp_url, mongodb_uri, database_name, clients)


def loses(*words: str) -> Callable[[bytes], bool]:
    """Return a predicate: a delivery holds one of the words."""
    return lambda body: any(word.encode() in body for word in words)


def noting(bodies: list[bytes]) -> Callable[[bytes], bool]:
    """Return a predicate that loses nothing and keeps the bodies."""

    def note(body: bytes) -> bool:
        bodies.append(body)
        return False

    return note


async def send(client: LiveClient, room: str, text: str) -> None:
    """Send a message and wait for its ack."""
    assert (await client.ask("chat:send", chatroomId=room, message=text))["type"] == "chat:ack"


async def say(client: LiveClient, user: str, text: str) -> str:
    """Send a direct message, wait for its ack, and return its room."""
    ack = await client.ask("chat:direct", userId=user, message=text)
    assert ack["type"] == "chat:ack"
    return str(ack["data"]["chatroomId"])


# The last line --------------------------------------------------------------------------------------------------------


async def test_lost_last_line_of_room_arrives_with_its_head(loss: Loss) -> None:
    ann = await loss.client(loss.near, "ann")
    room = await RestClient(loss.near, "ann").create_room()
    ben = await loss.reader("ben", room)
    loss.broker.loses = loses("text-last")
    await send(ann, room, "text-last")
    await until(lambda: loss.broker.lost == 1)
    loss.broker.loses = loses()
    assert (await ben.data("chat:message", timeout_s=5))["message"] == "text-last"


async def test_lost_first_post_shows_the_new_member_with_its_message(loss: Loss) -> None:
    room = await RestClient(loss.near, "ann").create_room()
    ben, cat = await loss.reader("ben", room), await loss.client(loss.near, "cat")
    loss.broker.loses = loses("text-first")
    await send(cat, room, "text-first")
    await until(lambda: loss.broker.lost == 1)
    loss.broker.loses = loses()
    await ben.data("chat:message", timeout_s=5)
    joined = await ben.data("member:joined", timeout_s=5)
    assert (joined["userId"], joined["memberCount"]) == ("cat", 2)


@pytest.mark.parametrize("before", [1, 0], ids=["known room", "room new to the socket"])
async def test_lost_last_line_of_direct_room_arrives_with_its_head(loss: Loss, before: int) -> None:
    ann, ben = await loss.client(loss.near, "ann"), await loss.client(loss.far, "ben")
    for number in range(before):
        await say(ann, "ben", f"before {number}")
        await ben.data("chat:message")
    loss.broker.loses = loses("text-last")
    await say(ann, "ben", "text-last")
    await until(lambda: loss.broker.lost == 1)
    loss.broker.loses = loses()
    assert (await ben.data("chat:message", timeout_s=5))["message"] == "text-last"
    await say(ann, "ben", "after")
    assert (await ben.data("chat:message"))["message"] == "after"
    assert [frame for frame in ben.frames if frame["type"] == "chat:message"] == []


@pytest.mark.parametrize("change", ["chat:delete", "chat:edit"])
async def test_lost_change_in_direct_room_reaches_socket_that_has_not_joined_it(loss: Loss, change: str) -> None:
    ann = await loss.client(loss.near, "ann")
    sent = (await ann.ask("chat:direct", userId="ben", message="a secret"))["data"]
    ben = await loss.client(loss.far, "ben")  # opened after the message, which it reads over REST
    event = {"chat:delete": "chat:deleted", "chat:edit": "chat:updated"}[change]
    loss.broker.loses = loses(event)
    fields = {"message": "no secret"} if change == "chat:edit" else {}
    answer = await ann.ask(change, chatroomId=sent["chatroomId"], messageId=sent["messageId"], **fields)
    assert answer["type"] == "chat:ack"
    await until(lambda: loss.broker.lost == 1)
    loss.broker.loses = loses()
    assert (await ben.data(event))["messageId"] == sent["messageId"]


async def test_lost_invitation_and_removal_arrive_with_the_head(loss: Loss) -> None:
    rest = RestClient(loss.near, "ann")
    ben = await loss.client(loss.far, "ben")
    loss.broker.loses = loses("member:invited")
    room = await rest.create_room(type_="private", memberIds=["ben"])
    await until(lambda: loss.broker.lost == 1)
    loss.broker.loses = loses()
    assert (await ben.data("member:invited", timeout_s=5))["chatroomId"] == room
    loss.broker.loses = loses("removed")
    await rest.data("DELETE", f"/v1/chatrooms/{room}/members/ben")
    await until(lambda: loss.broker.lost == 2)
    loss.broker.loses = loses()
    told = {"channel": "chatroom", "chatroomId": room, "reason": "removed"}
    assert await ben.data("unsubscribed", timeout_s=5) == told
    assert [frame for frame in ben.frames if frame["type"] in ("member:invited", "unsubscribed")] == []


async def test_lost_removal_of_a_subscriber_takes_effect_after_the_lost_messages(loss: Loss) -> None:
    ann, rest = await loss.client(loss.near, "ann"), RestClient(loss.near, "ann")
    room = await rest.create_room(type_="private", memberIds=["ben"])
    ben = await loss.reader("ben", room)
    loss.broker.loses = loses("text-before", "removed")
    await send(ann, room, "text-before")
    await rest.data("DELETE", f"/v1/chatrooms/{room}/members/ben")
    await until(lambda: loss.broker.lost == 2)
    loss.broker.loses = loses()
    await send(ann, room, "text-after")
    await ben.data("unsubscribed", timeout_s=5)
    shown = [frame["type"] for frame in ben.frames if frame["type"] in ("chat:message", "member:left")]
    assert shown == ["chat:message", "member:left"]
    await ben.barrier()
    assert [frame["data"].get("message") for frame in ben.frames if frame["type"] == "chat:message"] == ["text-before"]


@pytest.mark.parametrize("gap_s", [0.0, HEAD_S / 4], ids=["at once", "before the head"])
async def test_lost_first_direct_message_is_shown_before_next_one(loss: Loss, gap_s: float) -> None:
    ann, ben = await loss.client(loss.near, "ann"), await loss.client(loss.far, "ben")
    loss.broker.loses = loses("text-first")
    await say(ann, "ben", "text-first")
    await until(lambda: loss.broker.lost == 1)
    loss.broker.loses = loses()
    await asyncio.sleep(gap_s)
    await say(ann, "ben", "text-second")
    shown = [(await ben.data("chat:message", timeout_s=5))["message"] for _ in range(2)]
    assert shown == ["text-first", "text-second"]


# A full queue of a gateway --------------------------------------------------------------------------------------------


async def test_room_is_complete_and_revoked_user_gone_after_queue_lost_lines(loss: Loss) -> None:
    """A room line, its head, and a revocation are lost, while the connection stays."""
    ann = await loss.client(loss.near, "ann")
    room = await RestClient(loss.near, "ann").create_room()
    ben, eve = await loss.reader("ben", room), await loss.reader("eve", room)
    connections = loss.broker.connections
    lost: set[str] = set()

    def drops(body: bytes) -> bool:
        lost.update(line.split(b"\t")[1].decode() for line in body.split(b"\n") if line.count(b"\t") >= 4)
        return room.encode() in body or b"\tstanding\t" in body

    loss.broker.loses = drops
    await send(ann, room, "one")
    async with notifier_client(loss.amqp_url) as desk:
        await desk.publish("user.banned", {"userId": "eve"})
    await until(lambda: lost >= {DeliveryKind.ORDERED, DeliveryKind.HEAD, DeliveryKind.CONTROL})
    loss.broker.loses = loses()
    await send(ann, room, "two")
    assert [(await ben.data("chat:message"))["message"] for _ in range(2)] == ["one", "two"]
    assert await eve.close_code() == 4403
    assert loss.broker.connections == connections


async def test_gateway_whose_queue_overflowed_shows_all_and_bans(loss: Loss) -> None:
    """The real broker drops the head of the gateway's queue, which is not being read."""
    ann = await loss.client(loss.near, "ann")
    room = await RestClient(loss.near, "ann").create_room()
    ben, eve = await loss.reader("ben", room), await loss.reader("eve", room)
    connections = loss.broker.connections
    passed: list[bytes] = []
    loss.broker.loses = noting(passed)
    key = shard_key(shard_of(room_channel(room)))
    loss.broker.hold()
    await loss.fill(DELIVERIES, key, FILLERS)
    await send(ann, room, "text-lost")
    async with notifier_client(loss.amqp_url) as desk:
        await desk.publish("user.banned", {"userId": "eve"})
    await asyncio.sleep(HEAD_S)  # its head is in the queue too
    await loss.fill(DELIVERIES, key, FILLERS_LAST)
    loss.broker.resume()
    assert await eve.close_code() == 4403
    await send(ann, room, "next")
    assert [(await ben.data("chat:message"))["message"] for _ in range(2)] == ["text-lost", "next"]
    lines = [line for body in passed for line in body.split(b"\n") if line.startswith(room_channel(room).encode())]
    assert lines and b"text-lost" not in b"".join(lines), "the queue lost nothing"
    assert loss.broker.connections == connections


# A full queue of an owner ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held_s", [HELD_S, 7.0], ids=["within a command's TTL", "beyond it"])
async def test_command_rejected_by_full_queue_is_stored_once(loss: Loss, held_s: float) -> None:
    ann = await loss.client(loss.near, "ann")
    room = await RestClient(loss.near, "ann").create_room()
    arrived: list[bytes] = []

    def note(body: bytes) -> bool:
        if b"text-once" in body:
            arrived.append(body)
        return False

    loss.worker.loses = note
    loss.worker.hold()
    for size_bytes in (FILLER_BYTES, 1_000, 50):  # until no command fits
        await loss.fill("", await loss.owner_queue(), FILLERS, size_bytes)
    frame = {"chatroomId": room, "message": "text-once", "clientMessageId": "c-1"}
    first = asyncio.create_task(ann.ask("chat:send", **frame))
    await asyncio.sleep(held_s)
    loss.worker.resume()
    answer = await first
    assert answer["type"] == ("chat:ack" if held_s == HELD_S else "error"), answer
    assert (await ann.ask("chat:send", **frame))["type"] == "chat:ack"
    history = await RestClient(loss.near, "ann").data("GET", f"/v1/chatrooms/{room}/messages")
    assert [message["message"] for message in history] == ["text-once"]
    if held_s == HELD_S:
        assert decode_body(arrived[0])[0].is_resent, "the queue rejected nothing"
