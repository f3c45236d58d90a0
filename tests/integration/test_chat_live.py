"""Chat over WebSocket: two gateways, chat_service, the real broker and database, the real wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
from prometheus_client import REGISTRY

from shared.bus.topology import CHAT_QUERY
from tests.support.cutting_proxy import cutting_proxy
from tests.support.live_client import LiveClient, RestClient
from tests.support.services import chat_service, gateway_alone
from tests.support.tokens import mint
from tests.support.waiting import until, until_async


@pytest.fixture
async def gateways(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[tuple[str, str]]:
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        gateway_alone(amqp_url) as first,
        gateway_alone(amqp_url) as second,
    ):
        yield first, second


async def test_message_reaches_subscribers_on_both_gateways(gateways: tuple[str, str]) -> None:
    alice_rest = RestClient(gateways[0], "alice")
    room = await alice_rest.create_room()
    async with (
        await LiveClient.as_user(gateways[0], "alice", firstName="Alice", lastName="A") as alice,
        await LiveClient.as_user(gateways[1], "bob") as bob,
    ):
        for client in (alice, bob):
            answer = await client.ask("subscribe", channel="chatroom", chatroomId=room)
            assert answer["type"] == "subscribed"
            assert answer["data"]["seq"] == 0
        ack = await alice.ask("chat:send", chatroomId=room, message="EUR/USD up", clientMessageId="c-1")
        assert ack["type"] == "chat:ack"
        seen = [await client.data("chat:message") for client in (alice, bob)]
        assert seen[0] == seen[1]
        assert seen[0] == {
            "chatroomId": room,
            "messageId": ack["data"]["messageId"],
            "userId": "alice",
            "message": "EUR/USD up",
            "timestamp": ack["data"]["timestamp"],
            "seq": 1,
            "rev": 2,
            "clientMessageId": "c-1",
            "user": {"firstName": "Alice", "lastName": "A", "avatar": None},
        }
        history = await alice_rest.data("GET", f"/v1/chatrooms/{room}/messages")
        assert [message["id"] for message in history] == [ack["data"]["messageId"]]


async def test_frames_sent_without_waiting_are_handled_in_order(gateways: tuple[str, str]) -> None:
    room = await RestClient(gateways[0], "alice").create_room()
    async with await LiveClient.open(gateways[0]) as client:
        await client.send("auth", token=mint("alice"))
        await client.send("subscribe", channel="chatroom", chatroomId=room)
        for number in range(50):
            await client.send("chat:send", chatroomId=room, message=f"m{number}")
        texts = [(await client.data("chat:message"))["message"] for _ in range(50)]
        assert texts == [f"m{number}" for number in range(50)]


async def test_resent_message_is_stored_once_over_sockets_gateways_and_rest(gateways: tuple[str, str]) -> None:
    rest = RestClient(gateways[1], "alice")
    room = await rest.create_room()
    async with (
        await LiveClient.as_user(gateways[0], "alice") as first,
        await LiveClient.as_user(gateways[1], "alice") as second,
    ):
        fields = {"chatroomId": room, "message": "once", "clientMessageId": "same"}
        acks = await asyncio.gather(
            *(client.ask("chat:send", **fields) for client in (first, second) for _ in range(5))
        )
        assert len({ack["data"]["messageId"] for ack in acks}) == 1
        body = {"message": "once", "clientMessageId": "same"}
        status, again = await rest.call("POST", f"/v1/chatrooms/{room}/messages", json=body)
        assert (status, again["data"]["id"]) == (200, acks[0]["data"]["messageId"])
        assert len(await rest.data("GET", f"/v1/chatrooms/{room}/messages")) == 1


async def test_resume_replays_exactly_what_was_missed(gateways: tuple[str, str]) -> None:
    rest = RestClient(gateways[0], "alice")
    room = await rest.create_room()
    for number in range(1, 8):
        await rest.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": f"m{number}"})
    async with await LiveClient.as_user(gateways[1], "bob") as bob:
        answer = await bob.ask("subscribe", channel="chatroom", chatroomId=room, since=4)
        assert (answer["data"]["recovered"], answer["data"]["replayed"], answer["data"]["seq"]) == (True, 3, 7)
        await rest.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "m8"})
        assert [(await bob.data("chat:message"))["seq"] for _ in range(4)] == [5, 6, 7, 8]


async def test_resume_does_not_repeat_direct_messages(gateways: tuple[str, str]) -> None:
    alice = RestClient(gateways[0], "alice")

    async def write(text: str) -> str:
        message = await alice.data("POST", "/v1/messages/direct", json={"userId": "bob", "message": text})
        return str(message["chatroomId"])

    room = await write("m1")
    await write("m2")
    async with await LiveClient.as_user(gateways[1], "bob") as bob:
        await write("m3")
        await write("m4")
        assert [(await bob.data("chat:message"))["seq"] for _ in range(2)] == [3, 4]
        answer = await bob.ask("subscribe", channel="chatroom", chatroomId=room, since=1)
        assert (answer["data"]["recovered"], answer["data"]["replayed"], answer["data"]["seq"]) == (True, 1, 4)
        await write("m5")
        assert [(await bob.data("chat:message"))["seq"] for _ in range(2)] == [2, 5]


async def test_more_than_a_thousand_missed_are_not_replayed(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with (
        chat_service(amqp_url, mongodb_uri, database_name, rate_limit_messages_per_minute=5000),
        gateway_alone(amqp_url, rate_limit_messages_per_minute=5000) as url,
    ):
        room = await RestClient(url, "alice").create_room()
        async with await LiveClient.as_user(url, "alice") as alice, await LiveClient.as_user(url, "bob") as bob:
            await asyncio.gather(
                *(alice.ask("chat:send", chatroomId=room, message=f"m{number}") for number in range(1001))
            )
            missed = await bob.ask("subscribe", channel="chatroom", chatroomId=room, since=0)
            assert (missed["data"]["recovered"], missed["data"]["replayed"]) == (False, 0)
            enough = await bob.ask("subscribe", channel="chatroom", chatroomId=room, since=1)
            assert (enough["data"]["recovered"], enough["data"]["replayed"]) == (True, 1000)
            assert [(await bob.data("chat:message"))["seq"] for _ in range(1000)] == list(range(2, 1002))


async def test_rate_limit_holds_over_sockets_gateways_and_rest(gateways: tuple[str, str]) -> None:
    rest = RestClient(gateways[0], "alice")
    room = await rest.create_room()
    async with (
        await LiveClient.as_user(gateways[0], "alice") as first,
        await LiveClient.as_user(gateways[1], "alice") as second,
    ):
        answers = [
            await (first, second)[number % 2].ask("chat:send", chatroomId=room, message="x") for number in range(95)
        ]
        statuses = [
            (await rest.call("POST", f"/v1/chatrooms/{room}/messages", json={"message": "y"}))[0] for _ in range(8)
        ]
        assert [answer["type"] for answer in answers] == ["chat:ack"] * 95
        assert statuses == [201] * 5 + [429] * 3
        refused = (await first.ask("chat:send", chatroomId=room, message="z"))["data"]
        assert refused["code"] == "RATE_LIMITED"
        assert refused["retryable"] is True
        assert 0 < refused["retryAfterMs"] <= 60_000


async def test_direct_message_reaches_every_socket_of_both_once(gateways: tuple[str, str]) -> None:
    async with (
        await LiveClient.as_user(gateways[0], "alice") as alice,
        await LiveClient.as_user(gateways[0], "bob") as bob_here,
        await LiveClient.as_user(gateways[1], "bob") as bob_there,
        await LiveClient.as_user(gateways[1], "carol") as carol,
    ):
        ack = await alice.ask("chat:direct", userId="bob", message="psst")
        answer = await bob_here.ask("chat:direct", userId="alice", message="yes?")
        assert answer["data"]["chatroomId"] == ack["data"]["chatroomId"]
        for client in (alice, bob_here, bob_there):
            got = [(await client.data("chat:message"))["message"] for _ in range(2)]
            assert got == ["psst", "yes?"]
            await client.barrier()
        await carol.barrier()
        for client in (alice, bob_here, bob_there, carol):
            assert [frame for frame in client.frames if frame["type"] == "chat:message"] == []


async def test_first_direct_messages_survive_a_lost_broker_connection(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    """No room that bob's gateway knows has a seq that reveals the loss."""
    async with (
        cutting_proxy(amqp_url) as proxy,
        chat_service(amqp_url, mongodb_uri, database_name),
        gateway_alone(amqp_url) as near,
        gateway_alone(
            amqp_url.replace(urlsplit(amqp_url).netloc.split("@")[-1], urlsplit(proxy.url).netloc)
        ) as cut_off,
        await LiveClient.as_user(cut_off, "bob") as bob,
        await LiveClient.as_user(near, "alice") as alice,
        await LiveClient.as_user(near, "carol") as carol,
    ):
        assert (await carol.ask("chat:direct", userId="bob", message="before"))["type"] == "chat:ack"
        assert (await bob.data("chat:message"))["message"] == "before"
        proxy.swallows = True
        for sender, text in ((alice, "lost"), (alice, "lost too"), (carol, "lost as well")):
            assert (await sender.ask("chat:direct", userId="bob", message=text))["type"] == "chat:ack"
        proxy.swallows = False
        proxy.cut_all()
        assert (await alice.ask("chat:direct", userId="bob", message="behind it"))["type"] == "chat:ack"
        seen = [await bob.data("chat:message") for _ in range(4)]
        assert [m["message"] for m in seen if m["userId"] == "alice"] == ["lost", "lost too", "behind it"]
        assert [m["message"] for m in seen if m["userId"] == "carol"] == ["lost as well"]
        await bob.barrier()
        await alice.ask("chat:direct", userId="bob", message="last")
        assert (await bob.data("chat:message"))["message"] == "last"


async def test_connections_per_user_are_limited_over_all_gateways(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        gateway_alone(amqp_url, max_connections_per_user=6) as first,
        gateway_alone(amqp_url, max_connections_per_user=6) as second,
        AsyncExitStack() as stack,
    ):

        async def come(url: str) -> LiveClient:
            return await stack.enter_async_context(await LiveClient.open(url))

        async def ask(client: LiveClient) -> str:
            return str((await client.ask("auth", token=mint("trader")))["type"])

        clients = [await come(url) for url in (first, second, first, first, second, second)]
        for client in clients:
            assert await ask(client) == "auth:ok"
            await client.barrier()
        for url in (first, second):
            one_more = await come(url)
            await one_more.send("auth", token=mint("trader"))
            assert await one_more.close_code() == 1013
            refused = [frame for frame in one_more.frames if frame["type"] == "error"]
            assert [frame["data"]["code"] for frame in refused] == ["RATE_LIMITED"]
        for client in clients:
            await client.barrier()
        await clients[0].close()
        await until_async(lambda: opens(second), bool)
        crowd = [await come(url) for url in (first, second) * 10]
        await asyncio.gather(*(client.send("auth", token=mint("crowd")) for client in crowd))
        await until(lambda: sum(client.is_closed for client in crowd) == 14)
        assert {client.code for client in crowd if client.is_closed} == {1013}
        for client in crowd:
            if not client.is_closed:
                await client.barrier()


async def opens(url: str) -> bool:
    """Return whether the trader may open one more connection there."""
    async with await LiveClient.open(url) as client:
        return bool((await client.ask("auth", token=mint("trader")))["type"] == "auth:ok")


async def test_typing_goes_to_the_others_and_ends_by_itself(gateways: tuple[str, str]) -> None:
    room = await RestClient(gateways[0], "alice").create_room()
    async with (
        await LiveClient.as_user(gateways[0], "alice") as alice,
        await LiveClient.as_user(gateways[1], "bob") as bob,
    ):
        for client in (alice, bob):
            await client.ask("subscribe", channel="chatroom", chatroomId=room)
        for _ in range(3):
            await alice.send("chat:typing", chatroomId=room, isTyping=True)
        assert await bob.data("chat:typing") == {"chatroomId": room, "userId": "alice", "isTyping": True}
        assert await bob.data("chat:typing") == {"chatroomId": room, "userId": "alice", "isTyping": False}
        assert [frame for frame in alice.frames if frame["type"] == "chat:typing"] == []


async def test_removed_member_stops_receiving_on_every_gateway(gateways: tuple[str, str]) -> None:
    rest = RestClient(gateways[0], "alice")
    room = await rest.create_room(type_="private", memberIds=["bob"])
    async with (
        await LiveClient.as_user(gateways[0], "bob") as bob_here,
        await LiveClient.as_user(gateways[1], "bob") as bob_there,
        await LiveClient.as_user(gateways[1], "alice") as alice,
    ):
        for client in (bob_here, bob_there, alice):
            assert (await client.ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "subscribed"
        await rest.data("DELETE", f"/v1/chatrooms/{room}/members/bob")
        for client in (bob_here, bob_there, alice):
            assert (await client.data("member:left"))["userId"] == "bob"
        await alice.ask("chat:send", chatroomId=room, message="among us")
        await alice.data("chat:message")
        for client in (bob_here, bob_there):
            await client.barrier()
            assert [frame for frame in client.frames if frame["type"] == "chat:message"] == []
            assert (await client.ask("subscribe", channel="chatroom", chatroomId=room))["data"]["code"] == "NOT_FOUND"


async def test_private_room_continues_for_members_only(gateways: tuple[str, str]) -> None:
    rest = RestClient(gateways[0], "alice")
    room = await rest.create_room(memberIds=["bob"])
    async with (
        await LiveClient.as_user(gateways[1], "bob") as member,
        await LiveClient.as_user(gateways[1], "carol") as stranger,
        await LiveClient.as_user(gateways[0], "alice") as alice,
    ):
        for client in (member, stranger, alice):
            assert (await client.ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "subscribed"
        await alice.ask("chat:send", chatroomId=room, message="public 0")
        await rest.data("PUT", f"/v1/chatrooms/{room}", json={"type": "private"})
        for number in range(1, 20):  # right after the change, while the gateways ask
            await alice.ask("chat:send", chatroomId=room, message=f"private {number}")
        for client in (alice, member):
            seqs = [(await client.data("chat:message"))["seq"] for _ in range(20)]
            assert seqs == list(range(1, 21))
        await stranger.barrier()
        shown = [frame["data"]["message"] for frame in stranger.frames if frame["type"] == "chat:message"]
        assert shown == ["public 0"]
        answer = await stranger.ask("subscribe", channel="chatroom", chatroomId=room)
        assert answer["data"]["code"] == "NOT_FOUND"


async def test_room_deletion_reaches_every_subscriber(gateways: tuple[str, str]) -> None:
    rest = RestClient(gateways[0], "alice")
    room = await rest.create_room()
    async with await LiveClient.as_user(gateways[1], "bob") as bob:
        await bob.ask("subscribe", channel="chatroom", chatroomId=room)
        await rest.data("DELETE", f"/v1/chatrooms/{room}")
        assert await bob.data("chatroom:deleted") == {"chatroomId": room}
        assert (await bob.ask("chat:send", chatroomId=room, message="x"))["data"]["code"] == "NOT_FOUND"
    assert (await rest.call("GET", f"/v1/chatrooms/{room}"))[0] == 404


async def test_presence_changes_once_with_a_grace(gateways: tuple[str, str]) -> None:
    room = await RestClient(gateways[0], "alice").create_room()
    await RestClient(gateways[0], "bob").data("POST", f"/v1/chatrooms/{room}/join")
    async with await LiveClient.as_user(gateways[0], "alice") as alice:
        await alice.ask("subscribe", channel="chatroom", chatroomId=room)
        first = await LiveClient.as_user(gateways[0], "bob")
        online = await alice.take(lambda frame: frame["type"] == "user:online" and frame["data"]["userId"] == "bob")
        assert online["data"] == {"userId": "bob", "status": "online"}
        second = await LiveClient.as_user(gateways[1], "bob")
        await first.close()
        await second.close()
        third = await LiveClient.as_user(gateways[1], "bob")
        room_now = await RestClient(gateways[0], "alice").data("GET", f"/v1/chatrooms/{room}")
        assert (room_now["memberCount"], room_now["activeNow"]) == (2, 2)
        await third.close()
        offline = await alice.next("user:offline", timeout_s=15)
        assert offline["data"]["userId"] == "bob"
        assert offline["data"]["lastSeenAt"].endswith("Z")
        assert [frame for frame in alice.frames if frame["data"].get("userId") == "bob"] == []


async def test_read_marks_reach_own_sockets_and_the_room(gateways: tuple[str, str]) -> None:
    rest = RestClient(gateways[0], "alice")
    room = await rest.create_room()
    bob_rest = RestClient(gateways[1], "bob")
    await bob_rest.data("POST", f"/v1/chatrooms/{room}/join")
    for _ in range(3):
        await rest.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "x"})
    assert (await bob_rest.data("GET", f"/v1/chatrooms/{room}"))["unreadCount"] == 3
    async with (
        await LiveClient.as_user(gateways[0], "alice") as alice,
        await LiveClient.as_user(gateways[0], "bob") as bob,
        await LiveClient.as_user(gateways[1], "bob") as bob_too,
    ):
        for client in (alice, bob, bob_too):
            await client.ask("subscribe", channel="chatroom", chatroomId=room)
        await bob.send("chat:read", chatroomId=room, seq=2)
        for client in (alice, bob_too):
            assert await client.data("chat:read") == {"chatroomId": room, "userId": "bob", "seq": 2}
        assert (await bob.ask("chat:read", chatroomId=room, seq=1))["data"]["seq"] == 2
        assert [frame for frame in bob.frames if frame["type"] == "chat:read"] == []
    assert (await bob_rest.data("GET", f"/v1/chatrooms/{room}"))["unreadCount"] == 1


async def test_resumes_of_one_room_share_their_reads(gateways: tuple[str, str]) -> None:
    """A gateway died, and all clients of a room reconnect at once."""
    rest = RestClient(gateways[0], "alice", role="admin")
    room = await rest.create_room()
    for number in range(12):
        await rest.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": str(number)})
    clients = await asyncio.gather(*(LiveClient.as_user(gateways[1], f"comer-{number}") for number in range(60)))
    before = queries_taken()
    for number, client in enumerate(clients):
        await client.send("subscribe", channel="chatroom", chatroomId=room, since=number % 12)
    for number, client in enumerate(clients):
        assert (await client.data("subscribed"))["replayed"] == 12 - number % 12
        assert [(await client.data("chat:message"))["seq"] for _ in range(12 - number % 12)] == [
            *range(number % 12 + 1, 13)
        ]
        await client.close()
    assert 1 <= queries_taken() - before <= 3


def queries_taken() -> float:
    return REGISTRY.get_sample_value("bus_lines_taken_total", {"queue": CHAT_QUERY}) or 0.0
