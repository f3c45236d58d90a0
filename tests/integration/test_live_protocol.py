"""The protocol's tables over a real socket: frames, answers and close codes."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple

import aiohttp
import pytest
from prometheus_client import REGISTRY

from shared.ids import Prefix, new_id
from tests.support.events import cloud_event, publish
from tests.support.infrastructure import Infrastructure
from tests.support.live_client import Frame, LiveClient
from tests.support.people import Meet, Person, people
from tests.support.queues import empty_queues
from tests.support.services import chat_service, gateway, market_feed, notifier
from tests.support.tokens import mint
from tests.support.waiting import until

ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
KNOWN_SYMBOLS = ("EUR/USD", "GBP/JPY", "XAU/USD")
FRAME_MAX_BYTES = 65_536
SHORT_TTL_S = 2.0  # PyJWT counts whole seconds
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class LiveSystem(NamedTuple):
    url: str
    amqp_url: str


@pytest.fixture(scope="module")
async def system(infrastructure: Infrastructure) -> AsyncIterator[LiveSystem]:
    """Run all services and one gateway for all tests here; each test has its own users."""
    amqp_url, mongodb_uri, database = infrastructure.amqp_url, infrastructure.mongodb_uri, new_id(Prefix.COMMAND)
    await empty_queues(amqp_url)
    async with (
        chat_service(amqp_url, mongodb_uri, database),
        notifier(amqp_url, mongodb_uri, database),
        market_feed(amqp_url, mongodb_uri, database, market_symbols=KNOWN_SYMBOLS),
        gateway(amqp_url) as url,
    ):
        yield LiveSystem(url, amqp_url)


@pytest.fixture
def meet(system: LiveSystem) -> Meet:
    return people(system.url)


async def refused(client: LiveClient, type_: str, **fields: Any) -> dict[str, Any]:
    """Send a frame that is refused, and return the data of the error."""
    answer = await client.ask(type_, **fields)
    assert answer["type"] == "error", answer
    return error_data(answer)


def error_data(frame: Frame) -> dict[str, Any]:
    data: dict[str, Any] = frame["data"]
    assert {"code", "message", "retryable"} <= set(data)
    assert set(data) <= {"code", "message", "retryable", "request", "retryAfterMs", "details"}
    return data


async def answer_to(client: LiveClient, id_: object) -> Frame:
    return await client.take(lambda frame: frame.get("id") == id_)


async def last_words(client: LiveClient) -> tuple[str, int | None]:
    """Return the code of the error before the server closes, and the close code."""
    code = error_data(await client.next("error"))["code"]
    return code, await client.close_code()


async def still_works(client: LiveClient) -> None:
    assert (await client.ask("ping"))["type"] == "pong"


def texts_of(type_: str, **fields: Any) -> str:
    return json.dumps({"type": type_, **fields})


# Auth ---------------------------------------------------------------------------------------------------------------


async def test_auth_ok_has_all_fields(system: LiveSystem, meet: Meet) -> None:
    alice = meet("alice")
    async with await LiveClient.open(system.url) as client:
        answer = await client.ask("auth", token=mint(alice.id))
        assert answer["type"] == "auth:ok"
        data = answer["data"]
        assert ISO_TIME.fullmatch(data.pop("serverTime")) and ISO_TIME.fullmatch(data.pop("expiresAt"))
        assert data.pop("sessionId").startswith("sess_")
        assert data == {
            "userId": alice.id,
            "heartbeatInterval": 30_000,
            "connectionTimeout": 60_000,
            "maxMessageBytes": FRAME_MAX_BYTES,
        }


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", "UNAUTHORIZED"),
        ("no.jwt", "UNAUTHORIZED"),
        (None, "UNAUTHORIZED"),
        (5, "UNAUTHORIZED"),
        ("x" * 9000, "UNAUTHORIZED"),
        (mint("alice", secret="another secret, of the same good length"), "UNAUTHORIZED"),
        (mint("alice", exp=None), "UNAUTHORIZED"),
        (mint("alice", sub=""), "UNAUTHORIZED"),
        (mint("alice", ttl_s=-5), "TOKEN_EXPIRED"),
    ],
)
async def test_bad_token_closes_with_4401(system: LiveSystem, token: Any, code: str) -> None:
    async with await LiveClient.open(system.url) as client:
        await client.send("auth", token=token)
        assert await last_words(client) == (code, 4401)
        if token and isinstance(token, str):
            assert token not in json.dumps(client.frames)


@pytest.mark.parametrize(
    "text",
    [
        texts_of("auth"),
        texts_of("subscribe", channel="chatroom", chatroomId="room_1"),
        texts_of("chat:send", chatroomId="room_1", message="x"),
        texts_of("presence:get", userIds=["bob"]),
        texts_of("no such type"),
        "{",
        "[]",
    ],
)
async def test_first_frame_must_be_auth(system: LiveSystem, text: str) -> None:
    async with await LiveClient.open(system.url) as client:
        await client.send_text(text)
        assert await last_words(client) == ("UNAUTHORIZED", 4401)


async def test_ping_is_answered_before_auth(system: LiveSystem, meet: Meet) -> None:
    async with await LiveClient.open(system.url) as client:
        assert ISO_TIME.fullmatch((await client.ask("ping"))["data"]["serverTime"])
        assert (await client.ask("auth", token=mint(meet("alice").id)))["type"] == "auth:ok"


async def test_frames_after_a_refused_auth_are_ignored(system: LiveSystem, meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    async with await LiveClient.open(system.url) as client:
        await client.send("auth", token="bad")
        await client.send("auth", token=mint(alice.id))
        await client.send("chat:send", chatroomId=room, message="x")
        assert await client.close_code() == 4401
        assert [frame["type"] for frame in client.frames] == ["error"]
    assert await alice.data("GET", f"/v1/chatrooms/{room}/messages") == []


async def test_later_auth_of_the_same_user_renews_the_token(system: LiveSystem, meet: Meet) -> None:
    alice = meet("alice")
    async with await LiveClient.open(system.url) as client:
        first = (await client.ask("auth", token=mint(alice.id, ttl_s=60)))["data"]
        renewed = (await client.ask("auth", token=mint(alice.id, ttl_s=600)))["data"]
        assert renewed["sessionId"] == first["sessionId"]
        assert renewed["expiresAt"] > first["expiresAt"]


async def test_token_of_another_user_closes_with_4403(system: LiveSystem, meet: Meet) -> None:
    async with await meet("alice").live() as client:
        await client.send("auth", token=mint(meet("bob").id))
        assert await last_words(client) == ("FORBIDDEN", 4403)


async def test_later_auth_with_a_bad_token_closes_with_4401(meet: Meet) -> None:
    async with await meet("alice").live() as client:
        await client.send("auth", token="bad")
        assert await last_words(client) == ("UNAUTHORIZED", 4401)


async def test_auth_with_too_many_subscriptions_is_refused_and_session_goes_on(system: LiveSystem, meet: Meet) -> None:
    alice = meet("alice")
    subscriptions = [{"channel": "community", "communityId": f"c{number}"} for number in range(201)]
    async with await alice.live() as client:
        error = await client.ask("auth", token=mint(alice.id), subscriptions=subscriptions)
        assert (error["type"], error["data"]["code"]) == ("error", "VALIDATION")
        assert "subscriptions" in error["data"]["message"]
        await still_works(client)


async def test_expired_token_closes_with_4401_unless_it_was_renewed(system: LiveSystem, meet: Meet) -> None:
    alice = meet("alice")
    async with await LiveClient.open(system.url) as renewing, await LiveClient.open(system.url) as expiring:
        for client in (renewing, expiring):
            assert (await client.ask("auth", token=mint(alice.id, ttl_s=SHORT_TTL_S)))["type"] == "auth:ok"
        assert (await renewing.ask("auth", token=mint(alice.id)))["type"] == "auth:ok"
        assert await last_words(expiring) == ("TOKEN_EXPIRED", 4401)
        await still_works(renewing)


async def test_subscriptions_in_auth_are_restored(system: LiveSystem, meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    for text in ("a", "b"):
        await alice.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": text})
    subscriptions = [
        {"type": "subscribe", "channel": "chatroom", "chatroomId": room, "since": 1, "id": 1},
        {"channel": "notifications", "id": "two"},
        {"channel": "market", "symbols": ["EUR/USD"], "id": 3},
        {"channel": "community", "communityId": "c", "id": 4},
        {"channel": "chatroom", "chatroomId": "room_unknown", "id": 5},
        {"channel": "chatroom", "id": 6},
        {"type": "ping", "id": 7},
        "no object",
    ]
    async with await LiveClient.open(system.url) as client:
        await client.send("auth", token=mint(alice.id), subscriptions=subscriptions)
        await client.next("auth:ok")
        answers = {id_: await answer_to(client, id_) for id_ in (1, "two", 3, 4)}
        assert {id_: answer["type"] for id_, answer in answers.items()} == dict.fromkeys(answers, "subscribed")
        assert (answers[1]["data"]["recovered"], answers[1]["data"]["replayed"]) == (True, 1)
        assert (await client.data("chat:message"))["message"] == "b"
        assert (await client.data("market:price"))["symbol"] == "EUR/USD"
        errors = [await client.next("error") for _ in range(4)]
        assert {error.get("id"): error["data"]["code"] for error in errors} == {
            5: "NOT_FOUND",
            6: "VALIDATION",
            7: "VALIDATION",
            None: "VALIDATION",
        }
        await still_works(client)


# Frames -------------------------------------------------------------------------------------------------------------


async def test_binary_frame_closes_with_1003(meet: Meet) -> None:
    async with await meet("alice").live() as client:
        await client.send_bytes(texts_of("ping").encode())
        assert await client.close_code() == 1003


@pytest.mark.parametrize("character", ["x", "é", "📈"])
async def test_frame_of_64_kb_is_accepted_and_one_byte_more_closes_with_1009(meet: Meet, character: str) -> None:
    async with await meet("alice").live() as client:
        frame = json.dumps({"type": "ping", "id": "full", "pad": ""})
        room_bytes = FRAME_MAX_BYTES - len(frame)
        count, rest = divmod(room_bytes, len(character.encode()))
        full = frame[:-2] + character * count + "x" * rest + frame[-2:]
        assert len(full.encode()) == FRAME_MAX_BYTES
        await client.send_text(full)
        assert (await client.next("pong"))["id"] == "full"
        await client.send_text(full + " ")
        assert await client.close_code() == 1009


async def test_message_that_fills_its_frame_reaches_the_room(meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    empty = json.dumps({"type": "chat:send", "chatroomId": room, "message": ""})
    text = "x" * (FRAME_MAX_BYTES - len(empty))
    async with await alice.live() as client:
        await client.ask("subscribe", channel="chatroom", chatroomId=room)
        await client.send_text(empty[:-2] + text + empty[-2:])
        assert (await client.data("chat:message"))["message"] == text


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "[]", '"ping"', "null", "7", "{}", '{"type": 5}', '{"type": null}', '{"type": "ping"} x'),
        *('{"type": "ping", "x": NaN}', "ping", '{"type": "ping", "x": ' + "[" * 30_000, '{"type": "\\ud800"}'),
    ],
)
async def test_invalid_frame_is_answered_bad_frame(meet: Meet, text: str) -> None:
    async with await meet("alice").live() as client:
        await client.send_text(text)
        data = error_data(await client.next("error"))
        assert (data["code"], data["retryable"]) == ("BAD_FRAME", False)
        await still_works(client)


async def test_invalid_symbol_is_unknown_and_others_are_subscribed(meet: Meet) -> None:
    odd = ["M&M.NS", "x" * 33, "", "a,b\t", "EUR/USD", "é"]
    async with await meet("alice").live() as client:
        data = (await client.ask("subscribe", channel="market", symbols=odd))["data"]
        assert (data["symbols"], data["unknown"]) == (["EUR/USD"], [name for name in odd if name != "EUR/USD"])
        assert (await client.next("market:price"))["data"]["symbol"] == "EUR/USD"
        data = (await client.ask("subscribe", channel="market", symbols=["", "é"]))["data"]
        assert (data["symbols"], data["unknown"]) == ([], ["", "é"])
        data = (await client.ask("unsubscribe", channel="market", symbols=odd))["data"]
        assert data["symbols"] == odd


async def test_ten_bad_frames_in_a_row_close_with_4400(meet: Meet) -> None:
    async with await meet("alice").live() as client:
        for _ in range(3):
            for _ in range(9):
                await client.send_text("{")
            await still_works(client)
        for _ in range(10):
            await client.send_text("{")
        assert await client.close_code() == 4400
        assert [frame["data"]["code"] for frame in client.frames] == ["BAD_FRAME"] * 37


async def test_unknown_type_is_answered_and_may_be_repeated(meet: Meet) -> None:
    async with await meet("alice").live() as client:
        for type_ in ["chat:sing"] * 12 + ["auth:ok", ""]:
            data = await refused(client, type_)
            assert (data["code"], data["request"], data["retryable"]) == ("UNKNOWN_TYPE", type_, False)


@pytest.mark.parametrize(
    ("type_", "fields", "field"),
    [
        ("subscribe", {}, "channel"),
        ("subscribe", {"channel": "weather"}, "channel"),
        ("subscribe", {"channel": ["market"]}, "channel"),
        ("subscribe", {"channel": "chatroom"}, "chatroomId"),
        ("subscribe", {"channel": "chatroom", "chatroomId": 5}, "chatroomId"),
        ("subscribe", {"channel": "chatroom", "chatroomId": "r", "since": -1}, "since"),
        ("subscribe", {"channel": "chatroom", "chatroomId": "r", "since": "1"}, "since"),
        ("subscribe", {"channel": "chatroom", "chatroomId": "r", "since": 2**60}, "since"),
        ("subscribe", {"channel": "notifications", "userId": 5}, "userId"),
        ("subscribe", {"channel": "notifications", "since": 1.5}, "since"),
        ("subscribe", {"channel": "market"}, "symbols"),
        ("subscribe", {"channel": "market", "symbols": []}, "symbols"),
        ("subscribe", {"channel": "market", "symbols": "EUR/USD"}, "symbols"),
        ("subscribe", {"channel": "market", "symbols": ["EUR/USD", 5]}, "symbols[1]"),
        ("subscribe", {"channel": "market", "symbols": ["EUR/USD"], "maxRate": 0.5}, "maxRate"),
        ("subscribe", {"channel": "market", "symbols": ["EUR/USD"], "maxRate": 51}, "maxRate"),
        ("subscribe", {"channel": "community"}, "communityId"),
        ("unsubscribe", {}, "channel"),
        ("unsubscribe", {"channel": "chatroom"}, "chatroomId"),
        ("chat:send", {"message": "x"}, "chatroomId"),
        ("chat:send", {"chatroomId": "r"}, "message"),
        ("chat:send", {"chatroomId": "r", "message": " "}, "message"),
        ("chat:send", {"chatroomId": "r", "message": ["x"]}, "message"),
        ("chat:send", {"chatroomId": "r", "message": "x", "clientMessageId": 5}, "clientMessageId"),
        ("chat:send", {"chatroomId": "r", "message": "x", "clientMessageId": "x" * 129}, "clientMessageId"),
        ("chat:direct", {"message": "x"}, "userId"),
        ("chat:direct", {"userId": "bob"}, "message"),
        ("chat:typing", {"chatroomId": "r"}, "isTyping"),
        ("chat:typing", {"chatroomId": "r", "isTyping": "yes"}, "isTyping"),
        ("chat:read", {"chatroomId": "r"}, "seq"),
        ("chat:read", {"chatroomId": "r", "seq": -1}, "seq"),
        ("presence:get", {}, "userIds"),
        ("presence:get", {"userIds": []}, "userIds"),
        ("presence:get", {"userIds": ["u"] * 101}, "userIds"),
        ("presence:get", {"userIds": ["a", "b\tc"]}, "userIds[1]"),
        ("auth", {}, "token"),
    ],
)
async def test_invalid_field_is_named(meet: Meet, type_: str, fields: dict[str, Any], field: str) -> None:
    async with await meet("alice").live() as client:
        data = await refused(client, type_, **fields)
        assert (data["code"], data["request"], data["retryable"]) == ("VALIDATION", type_, False)
        assert [detail["field"] for detail in data["details"]] == [field]
        assert field in data["message"]
        await still_works(client)


async def test_direct_message_to_oneself_is_refused(meet: Meet) -> None:
    alice = meet("alice")
    async with await alice.live() as client:
        data = await refused(client, "chat:direct", userId=alice.id, message="x")
        assert (data["code"], data["details"][0]["field"]) == ("VALIDATION", "userId")


@pytest.mark.parametrize("id_", ["a", "", "ü📈", 7, 0, -1, 1.5, 2**53, 2**63 - 1])
async def test_answer_carries_the_id_of_its_frame(meet: Meet, id_: Any) -> None:
    room = await meet("alice").create_room()
    async with await meet("bob").live() as client:
        for text, answer in (
            (texts_of("ping", id=id_), "pong"),
            (texts_of("subscribe", channel="chatroom", chatroomId=room, id=id_), "subscribed"),
            (texts_of("chat:send", chatroomId=room, message="x", id=id_), "chat:ack"),
            (texts_of("presence:get", userIds=["bob"], id=id_), "presence:state"),
            (texts_of("unsubscribe", channel="chatroom", chatroomId=room, id=id_), "unsubscribed"),
            (texts_of("subscribe", channel="chatroom", chatroomId="room_unknown", id=id_), "error"),
            (texts_of("no such type", id=id_), "error"),
            (texts_of("chat:send", id=id_), "error"),
        ):
            await client.send_text(text)
            got = await client.next(answer)
            assert (got["id"], type(got["id"])) == (id_, type(id_)), text


async def test_answer_to_a_frame_without_id_has_none(meet: Meet) -> None:
    async with await meet("alice").live() as client:
        await client.send("ping")
        await client.send("no such type")
        assert "id" not in await client.next("pong")
        assert "id" not in await client.next("error")


@pytest.mark.parametrize("id_", ["true", "[1]", '{"a": 1}', '"\\ud800"', "9" * 40, "1e999"])
async def test_invalid_id_is_refused_and_the_socket_stays(meet: Meet, id_: str) -> None:
    async with await meet("alice").live() as client:
        await client.send_text(f'{{"type": "ping", "id": {id_}}}')
        assert error_data(await client.next("error"))["code"] in {"VALIDATION", "BAD_FRAME"}
        await still_works(client)


async def test_unknown_fields_are_ignored(meet: Meet) -> None:
    async with await meet("alice").live() as client:
        assert (await client.ask("ping", extra={"deep": [1]}, channel=5, token=None))["type"] == "pong"


# Rooms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unknown", "private", "group"])
@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        ("subscribe", {"channel": "chatroom"}),
        ("subscribe", {"channel": "chatroom", "since": 0}),
        ("chat:send", {"message": "x"}),
        ("chat:typing", {"isTyping": True}),
        ("chat:read", {"seq": 0}),
    ],
)
async def test_invisible_room_is_answered_like_a_missing_one(
    meet: Meet, kind: str, type_: str, fields: dict[str, Any]
) -> None:
    alice, bob = meet("alice"), meet("bob")
    room = "room_unknown" if kind == "unknown" else await alice.create_room(type_=kind)
    async with await bob.live() as client:
        data = await refused(client, type_, chatroomId=room, **fields)
        assert data == {"code": "NOT_FOUND", "message": "no such room", "retryable": False, "request": type_}


async def test_read_mark_beyond_the_last_message_is_refused(meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    async with await alice.live() as client:
        data = await refused(client, "chat:read", chatroomId=room, seq=1)
        assert (data["code"], data["details"][0]["field"]) == ("VALIDATION", "seq")


async def test_unsubscribed_room_delivers_nothing(meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    async with await alice.live() as client, await meet("bob").live() as other:
        for each in (client, other):
            await each.ask("subscribe", channel="chatroom", chatroomId=room)
        answer = await client.ask("unsubscribe", channel="chatroom", chatroomId=room)
        assert answer["data"] == {"channel": "chatroom", "chatroomId": room}
        await other.ask("chat:send", chatroomId=room, message="x")
        await other.data("chat:message")
        await still_works(client)
        assert [frame for frame in client.frames if frame["type"] == "chat:message"] == []
        assert (await client.ask("unsubscribe", channel="chatroom", chatroomId=room))["type"] == "unsubscribed"


async def test_presence_get_answers_in_the_order_asked(meet: Meet) -> None:
    alice = meet("alice")
    async with await alice.live() as client:
        async with asyncio.timeout(10):
            while True:
                answer = await client.ask("presence:get", userIds=["nobody", alice.id])
                users = answer["data"]["users"]
                if users[1]["status"] == "online":
                    break
        assert answer["type"] == "presence:state"
        assert users[0] == {"userId": "nobody", "status": "offline", "lastSeenAt": None}
        assert users[1]["userId"] == alice.id


# Notifications, communities, prices ---------------------------------------------------------------------------------


async def test_notifications_of_another_user_are_forbidden(meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    async with await bob.live() as client:
        data = await refused(client, "subscribe", channel="notifications", userId=alice.id)
        assert (data["code"], data["retryable"]) == ("FORBIDDEN", False)
        for fields in ({}, {"userId": bob.id}):
            answer = await client.ask("subscribe", channel="notifications", **fields)
            assert (answer["type"], answer["data"]["userId"]) == ("subscribed", bob.id)


async def test_notification_reaches_its_user_and_is_replayed_with_since(system: LiveSystem, meet: Meet) -> None:
    alice, bob = meet("alice"), meet("bob")
    content = {"title": "New Comment on Your Post", "message": "John commented", "priority": "medium"}
    async with await alice.live() as client, await bob.live() as other:
        for each in (client, other):
            await each.ask("subscribe", channel="notifications")
        body = cloud_event(new_id(Prefix.COMMAND), "notification.created", {"userId": alice.id, **content})
        await publish(system.amqp_url, "notification.created", body, body)
        data = await client.data("notification:new")
        assert {name: data[name] for name in content} == content
        assert (data["id"].startswith("notif_"), data["seq"]) == (True, 1)
        last = cloud_event(new_id(Prefix.COMMAND), "session.started", {"sessionId": "s"}, audience="all")
        await publish(system.amqp_url, "session.started", last)
        for each in (client, other):
            assert (await each.data("session:started"))["sessionId"] == "s"
            assert [frame for frame in each.frames if frame["type"] == "notification:new"] == []
    async with await alice.live() as again:
        answer = await again.ask("subscribe", channel="notifications", since=0)
        assert (answer["data"]["recovered"], answer["data"]["replayed"], answer["data"]["seq"]) == (True, 1, 1)
        assert await again.data("notification:new") == data


async def test_token_with_communities_allows_only_those(system: LiveSystem, meet: Meet) -> None:
    gold, silver = new_id(Prefix.COMMAND), new_id(Prefix.COMMAND)
    anyone, member = meet("anyone"), meet("member", communities=[gold])
    async with await anyone.live() as free, await member.live() as bound:
        data = await refused(bound, "subscribe", channel="community", communityId=silver)
        assert (data["code"], data["retryable"]) == ("FORBIDDEN", False)
        for client, community in ((free, gold), (free, silver), (bound, gold)):
            answer = await client.ask("subscribe", channel="community", communityId=community)
            assert answer["data"] == {"channel": "community", "communityId": community}
        bodies = [
            cloud_event(new_id(Prefix.COMMAND), "post.created", {"postId": f"of {name}", "communityId": community})
            for name, community in (("silver", silver), ("gold", gold))
        ]
        await publish(system.amqp_url, "post.created", *bodies)
        assert (await bound.data("post:created"))["postId"] == "of gold"
        assert {(await free.data("post:created"))["postId"] for _ in bodies} == {"of silver", "of gold"}
        await still_works(bound)
        assert bound.frames == []


async def test_renewed_token_ends_unnamed_communities(system: LiveSystem, meet: Meet) -> None:
    gold, silver = new_id(Prefix.COMMAND), new_id(Prefix.COMMAND)
    member = meet("member", communities=[gold, silver])
    async with await member.live() as client:
        for community in (gold, silver):
            await client.ask("subscribe", channel="community", communityId=community)
        await client.ask("auth", token=mint(member.id, communities=[gold]))
        assert await client.data("unsubscribed") == {"channel": "community", "communityId": silver}
        for community in (silver, gold):
            event = cloud_event(new_id(Prefix.COMMAND), "post.created", {"postId": community, "communityId": community})
            await publish(system.amqp_url, "post.created", event)
        assert (await client.data("post:created"))["postId"] == gold
        await still_works(client)
        assert client.frames == []


async def test_market_subscription_begins_with_the_latest_prices(meet: Meet) -> None:
    async with await meet("alice").live() as client:
        asked = ["EUR/USD", "NO/SUCH", "XAU/USD", "EUR/USD"]
        answer = await client.ask("subscribe", channel="market", symbols=asked, maxRate=50)
        assert answer["data"] == {"channel": "market", "symbols": ["EUR/USD", "XAU/USD"], "unknown": ["NO/SUCH"]}
        first = [await client.data("market:price") for _ in range(2)]
        assert {price["symbol"] for price in first} == {"EUR/USD", "XAU/USD"}
        for price in first:
            assert {"symbol", "price", "change", "changePercent", "timestamp", "seq"} <= set(price)
        later = await client.take(
            lambda frame: frame["type"] == "market:price" and frame["data"]["seq"] > max(p["seq"] for p in first)
        )
        assert later["data"]["symbol"] in {"EUR/USD", "XAU/USD"}
        answer = await client.ask("unsubscribe", channel="market", symbols=["EUR/USD", "XAU/USD"])
        assert answer["data"] == {"channel": "market", "symbols": ["EUR/USD", "XAU/USD"]}


# Limits -------------------------------------------------------------------------------------------------------------


async def test_subscriptions_are_bounded_and_released_ones_are_free(system: LiveSystem) -> None:
    async with gateway(system.amqp_url, max_subscriptions=3) as url:
        meet = people(url)
        async with await meet("alice").live() as client:
            for number in range(3):
                await client.ask("subscribe", channel="community", communityId=f"c{number}")
            for fields in ({"channel": "community", "communityId": "c3"}, {"channel": "notifications"}):
                data = await refused(client, "subscribe", **fields)
                assert (data["code"], data["retryable"]) == ("TOO_MANY_SUBSCRIPTIONS", False)
            assert (await client.ask("subscribe", channel="community", communityId="c0"))["type"] == "subscribed"
            await client.ask("unsubscribe", channel="community", communityId="c0")
            assert (await client.ask("subscribe", channel="community", communityId="c3"))["type"] == "subscribed"
            again = await refused(client, "subscribe", channel="community", communityId="c0")
            assert again["code"] == "TOO_MANY_SUBSCRIPTIONS"


async def test_symbols_are_bounded_and_released_ones_are_free(system: LiveSystem) -> None:
    async with gateway(system.amqp_url, max_symbols=2) as url:
        meet = people(url)
        async with await meet("alice").live() as client:
            data = await refused(client, "subscribe", channel="market", symbols=list(KNOWN_SYMBOLS))
            assert (data["code"], data["retryable"]) == ("TOO_MANY_SUBSCRIPTIONS", False)
            two = list(KNOWN_SYMBOLS[:2])
            for _ in range(2):
                answer = await client.ask("subscribe", channel="market", symbols=two)
                assert answer["data"]["symbols"] == two
            assert (await refused(client, "subscribe", channel="market", symbols=[KNOWN_SYMBOLS[2]]))["code"] == (
                "TOO_MANY_SUBSCRIPTIONS"
            )
            await client.ask("unsubscribe", channel="market", symbols=two[:1])
            answer = await client.ask("subscribe", channel="market", symbols=[KNOWN_SYMBOLS[2]])
            assert answer["data"]["symbols"] == [KNOWN_SYMBOLS[2]]


async def test_silent_socket_closes_with_4408_and_signs_of_life_keep_it_open(system: LiveSystem) -> None:
    async with gateway(system.amqp_url, connection_timeout_s=1.5) as url, AsyncExitStack() as stack:
        meet = people(url)
        pinging = await stack.enter_async_context(await LiveClient.open(url, heartbeat=0.4))
        await pinging.ask("auth", token=mint(meet("alice").id))
        asking = await stack.enter_async_context(await meet("alice").live())
        silent = await stack.enter_async_context(await meet("alice").live())
        while not silent.is_closed:
            await asyncio.wait_for(asking.ask("ping"), 5)
            await asyncio.wait([asyncio.ensure_future(silent.close_code())], timeout=0.2)
        assert silent.code == 4408
        await still_works(pinging)
        await still_works(asking)


async def test_socket_without_auth_in_time_closes_with_4408(system: LiveSystem) -> None:
    async with gateway(system.amqp_url, auth_timeout_s=1) as url:
        meet = people(url)
        async with await LiveClient.open(url, heartbeat=0.4) as client, await meet("alice").live() as in_time:
            assert await client.close_code() == 4408
            await still_works(in_time)


async def test_full_gateway_refuses_with_503_and_retry_after(system: LiveSystem) -> None:
    async with gateway(system.amqp_url, max_connections=2) as url, aiohttp.ClientSession() as http:
        meet = people(url)
        async with await meet("alice").live(), await LiveClient.open(url):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await LiveClient.open(url)
            assert refusal.value.status == 503
            assert refusal.value.headers is not None and int(refusal.value.headers["Retry-After"]) > 0
            async with http.get(f"{url}/v1/live", headers=UPGRADE) as response:
                body = await response.json()
                assert (response.status, body["status"], body["success"]) == (503, 503, False)
                assert body["error"]["code"] == "UNAVAILABLE"
            assert (await meet("bob").call("GET", "/v1/chatrooms"))[0] == 200  # REST continues

        async with asyncio.timeout(10):
            while True:  # until the closed sockets are gone
                with suppress(aiohttp.WSServerHandshakeError):
                    async with await meet("carol").live() as client:
                        await still_works(client)
                        break


async def test_connections_per_user_are_limited(system: LiveSystem) -> None:
    async with gateway(system.amqp_url, max_connections_per_user=2) as url:
        meet = people(url)
        alice = meet("alice")
        async with await alice.live() as first, await alice.live() as second, await LiveClient.open(url) as third:
            await third.send("auth", token=mint(alice.id))
            assert await last_words(third) == ("RATE_LIMITED", 1013)
            async with await meet("bob").live():
                await still_works(first)
                await still_works(second)


async def test_only_allowed_origins_may_connect(system: LiveSystem) -> None:
    async with gateway(system.amqp_url, allowed_origins=("https://app.example",)) as url:
        for origin in ("https://app.example", None):
            async with await LiveClient.open(url, origin=origin) as client:
                await still_works(client)
        for origin in ("https://evil.example", "https://app.example.evil.example", "http://app.example", "null"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await LiveClient.open(url, origin=origin)
            assert refusal.value.status == 403


async def test_any_origin_may_connect_by_default(system: LiveSystem) -> None:
    async with await LiveClient.open(system.url, origin="https://any.example") as client:
        await still_works(client)


async def test_sending_at_ten_times_the_rate_closes_with_4429(system: LiveSystem) -> None:
    async with gateway(system.amqp_url, rate_limit_messages_per_minute=2) as url:
        meet = people(url)
        async with await meet("alice").live() as client:
            for _ in range(20):
                await client.send("chat:send", chatroomId="room_unknown", message="x")
            await still_works(client)
            await client.send("chat:send", chatroomId="room_unknown", message="x")
            assert await client.close_code() == 4429
            assert client.frames[-1]["data"]["code"] == "RATE_LIMITED"


async def test_stopping_gateway_announces_reconnect_times_and_closes_with_1012(system: LiveSystem) -> None:
    async with AsyncExitStack() as stack:
        async with gateway(system.amqp_url) as url:
            meet = people(url)
            room = await meet("alice").create_room()
            clients = [await stack.enter_async_context(await meet("alice").live()) for _ in range(5)]
            clients.append(await stack.enter_async_context(await LiveClient.open(url)))
            for client in clients[:5]:
                await client.ask("subscribe", channel="chatroom", chatroomId=room)
        delays = []
        for client in clients:
            assert await client.close_code() == 1012
            assert client.frames[-1]["type"] == "server:drain"
            assert set(client.frames[-1]["data"]) == {"reconnectAfterMs"}
            delays.append(client.frames[-1]["data"]["reconnectAfterMs"])
        assert min(delays) > 0
        assert len(set(delays)) > 1
        with pytest.raises(aiohttp.ClientError):
            await LiveClient.open(url)


async def test_stopping_gateway_answers_requests_in_flight_before_closing(system: LiveSystem) -> None:
    async with AsyncExitStack() as stack:
        async with gateway(system.amqp_url) as url:
            meet = people(url)
            alice = meet("alice")
            room = await alice.create_room()
            client = await stack.enter_async_context(await alice.live())
            for number in range(20):
                await client.send("chat:send", id=number, chatroomId=room, message=f"m{number}")
            await client.barrier()  # all are in flight: the pong overtakes them
        assert await client.close_code() == 1012
        assert [frame["id"] for frame in client.frames if frame["type"] == "chat:ack"] == list(range(20))


async def test_eviction_releases_the_subscription(system: LiveSystem, meet: Meet) -> None:
    def subscriptions() -> float:
        return REGISTRY.get_sample_value("gateway_subscriptions") or 0.0

    alice, bob = meet("alice"), meet("bob")
    private = await alice.create_room(type_="private", memberIds=[bob.id])
    doomed = await alice.create_room()
    async with await bob.live() as client:
        before = subscriptions()
        for room in (private, doomed):
            assert (await client.ask("subscribe", channel="chatroom", chatroomId=room))["type"] == "subscribed"
        assert subscriptions() == before + 2
        await alice.data("DELETE", f"/v1/chatrooms/{private}/members/{bob.id}")
        await alice.data("DELETE", f"/v1/chatrooms/{doomed}")
        await until(lambda: subscriptions() == before)


async def test_client_that_stops_reading_closes_with_4413_without_effect_on_others(system: LiveSystem) -> None:
    meet = people(system.url)
    senders = [meet("sender") for _ in range(4)]
    room = await senders[0].create_room()
    async with AsyncExitStack() as stack:
        reading = await stack.enter_async_context(await meet("reader").live())
        await reading.ask("subscribe", channel="chatroom", chatroomId=room)
        stuck = await stack.enter_async_context(_unread_socket(system.url, meet("stuck"), room))
        before = closed_as_slow()
        live = [await stack.enter_async_context(await sender.live()) for sender in senders]
        text = "x" * 60_000
        for _ in range(60):
            acks = await asyncio.gather(*(client.ask("chat:send", chatroomId=room, message=text) for client in live))
            assert [ack["type"] for ack in acks] == ["chat:ack"] * 4
            if closed_as_slow() > before:
                break
        await until(lambda: closed_as_slow() > before)
        code = await _read_to_the_end(stuck)
        assert code == 4413
        sent = int((await senders[0].data("GET", f"/v1/chatrooms/{room}"))["lastSeq"])
        assert [(await reading.data("chat:message"))["seq"] for _ in range(sent)] == list(range(1, sent + 1))
        await still_works(reading)


def closed_as_slow() -> float:
    return REGISTRY.get_sample_value("gateway_closes_total", {"code": "4413", "by": "server"}) or 0.0


class _unread_socket:
    """Return a subscribed socket that never reads, with a minimal kernel buffer."""

    def __init__(self, url: str, person: Person, room: str) -> None:
        self._url = url
        self._person = person
        self._room = room
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> aiohttp.ClientWebSocketResponse:
        connector = aiohttp.TCPConnector(socket_factory=_small_socket)
        self._http = aiohttp.ClientSession(connector=connector)
        ws = await self._http.ws_connect(f"{self._url}/v1/live")
        await ws.send_json({"type": "auth", "token": mint(self._person.id)})
        await ws.send_json({"type": "subscribe", "channel": "chatroom", "chatroomId": self._room})
        for expected in ("auth:ok", "subscribed"):
            assert (await ws.receive_json(timeout=10))["type"] == expected
        return ws

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()


def _small_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    return made


async def _read_to_the_end(ws: aiohttp.ClientWebSocketResponse) -> int | None:
    async with asyncio.timeout(10):
        while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
    return ws.close_code


async def test_broken_socket_does_not_affect_others(system: LiveSystem, meet: Meet) -> None:
    alice = meet("alice")
    room = await alice.create_room()
    async with await alice.live() as client:
        await client.ask("subscribe", channel="chatroom", chatroomId=room)
        host, _, port = system.url.removeprefix("http://").partition(":")
        for _ in range(5):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /v1/live HTTP/1.1\r\nHost: x\r\n")
            writer.write("".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items()).encode() + b"\r\n")
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
        answer = await client.ask("chat:send", chatroomId=room, message="x")
        assert answer["type"] == "chat:ack"
        assert (await client.data("chat:message"))["message"] == "x"
