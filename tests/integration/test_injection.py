"""Hostile values in every field of every call, parameter, frame and event are refused by name, or stay plain text."""

import asyncio
import itertools
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import pytest

from shared.ids import Prefix, new_id
from tests.support.events import cloud_event, publish
from tests.support.infrastructure import Infrastructure
from tests.support.live_client import LiveClient
from tests.support.people import Person, people
from tests.support.queues import empty_queues
from tests.support.services import chat_service, gateway, market_feed, notifier
from tests.support.waiting import until_async

OPERATORS: list[Any] = [
    {"$ne": ""},
    {"$gt": ""},
    {"$regex": ".*"},
    {"$where": "sleep(5000)"},
    {"$in": ["a"]},
    {"a.b": 1},
    [],
    ["a"],
    [{"$gt": ""}],
    True,
    2**63,
    -(2**70),
    1e308,
    0.1,
]
TEXTS = [
    *("$where", "$ne", "a.b.$c", "{$gt: ''}", "'; return true; //", '"}, {"$gt": "'),
    *("\x00", "a\x00b", "a\tb", "a\nb", "a\r\nb", "\x1b[2J", "\x7f", "\u2028", "\u202e", "\ufeff"),
    *("../../etc/passwd", "..\\..", "a/b", "%2e%2e%2f", "a,b", "room:a", "<script>alert(1)</script>"),
    *(".*", "^.*$", "(", "[", "\\", "a{1000000}", "(a+)+$", "(?i)A"),
    *(
        "e\u0301",
        "\u00e9",
        "\ufb01",
        "\u0130",
        "\U0001f600",
        "\U0001f469\u200d\U0001f466",
        "x" * 2_000,
        "\u5b57" * 2_000,
    ),
]
CODES = {"VALIDATION", "NOT_FOUND", "FORBIDDEN", "TOO_LARGE"}
MESSAGES_MAX = 1_000_000
_events = itertools.count(1)


class InjectionWorld(NamedTuple):
    """A running system without an effective rate limit."""

    url: str
    amqp_url: str


@pytest.fixture(scope="module")
async def world(infrastructure: Infrastructure) -> AsyncIterator[InjectionWorld]:
    await empty_queues(infrastructure.amqp_url)
    system = infrastructure.amqp_url, infrastructure.mongodb_uri, new_id(Prefix.COMMAND)
    async with (
        chat_service(*system, rate_limit_messages_per_minute=MESSAGES_MAX),
        notifier(*system),
        market_feed(*system),
        gateway(infrastructure.amqp_url, rate_limit_messages_per_minute=MESSAGES_MAX) as url,
    ):
        yield InjectionWorld(url, infrastructure.amqp_url)


def meet(world: InjectionWorld, name: str = "mallory") -> Person:
    return people(world.url)(f"{name}-{secrets.token_hex(4)}")


def refusal_of(status: int, body: Any) -> Any:
    """Return the error of a failure that is not an internal one."""
    assert body["success"] is False
    assert body["status"] == status
    assert status in (400, 403, 404, 413), body
    assert body["error"]["code"] in CODES, body
    return body["error"]


def field_of(error: Any) -> str:
    return str(error["details"][0]["field"]) if "details" in error else ""


# REST ---------------------------------------------------------------------------------------------------------------


BODIES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/chatrooms", {"name": "n", "description": "d", "type": "private", "memberIds": ["a"]}),
    ("PUT", "/v1/chatrooms/{room}", {"name": "n", "description": "d", "type": "private"}),
    ("POST", "/v1/chatrooms/{room}/messages", {"message": "m", "clientMessageId": "c"}),
    ("POST", "/v1/chatrooms/{room}/read", {"seq": 0}),
    ("POST", "/v1/messages/direct", {"userId": "bob", "message": "m", "clientMessageId": "c"}),
    ("POST", "/v1/alerts", {"symbol": "EUR/USD", "direction": "above", "price": 9}),
]
FIELDS = [(method, path, body, field) for method, path, body in BODIES for field in body]


@pytest.mark.parametrize(("method", "path", "body", "field"), FIELDS)
async def test_body_field_accepts_only_text(
    world: InjectionWorld, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    mallory = meet(world)
    path = path.format(room=await mallory.create_room(type_="private"))

    async def try_one(value: Any) -> None:
        sent = {**body, field: [value] if field == "memberIds" else value}
        if "clientMessageId" in sent and field != "clientMessageId":
            sent["clientMessageId"] = secrets.token_hex(8)
        status, answer = await mallory.call(method, path, json=sent)
        if status >= 400:
            error = refusal_of(status, answer)
            assert field_of(error).partition("[")[0] == field, (value, error)
        elif isinstance(value, str):
            assert answer["data"].get(field, value) == value.strip() if field == "name" else value
        else:
            assert field in ("price", "seq"), (value, answer)

    for value in OPERATORS:
        await try_one(value)
    await asyncio.gather(*map(try_one, TEXTS))


PATHS = [
    ("GET", "/v1/chatrooms/{id}"),
    ("GET", "/v1/chatrooms/{id}/messages"),
    ("GET", "/v1/chatrooms/{id}/members"),
    ("POST", "/v1/chatrooms/{id}/join"),
    ("POST", "/v1/chatrooms/{id}/leave"),
    ("DELETE", "/v1/chatrooms/{id}"),
    ("PUT", "/v1/chatrooms/{room}/members/{id}"),
    ("DELETE", "/v1/chatrooms/{room}/members/{id}"),
    ("GET", "/v1/users/{id}/presence"),
    ("POST", "/v1/notifications/{id}/read"),
    ("DELETE", "/v1/alerts/{id}"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_path_accepts_only_ids(world: InjectionWorld, method: str, path: str) -> None:
    mallory = meet(world)
    room = await mallory.create_room(type_="private")
    for text in [*TEXTS, "\ud800", "a%00b"]:
        escaped = quote(text.encode(errors="surrogatepass"), safe="")
        status, answer = await mallory.call(method, path.format(id=escaped, room=room))
        if status == 200:  # a user's id may be any text without control characters, and stays that text
            assert path in (PATHS[6][1], PATHS[8][1])
            assert answer["data"]["userId"] == text
        elif len(text) > 1_000 and status == 414:
            assert answer["error"]["code"] == "TOO_LARGE"
        else:
            assert refusal_of(status, answer)["code"] in ("VALIDATION", "NOT_FOUND"), text


QUERIES = [
    *("/v1/chatrooms?page=", "/v1/chatrooms?limit=", "/v1/chatrooms?type=", "/v1/chatrooms?q="),
    *("/v1/chatrooms/{room}/messages?before=", "/v1/chatrooms/{room}/messages?after="),
    *("/v1/presence?ids=", "/v1/market/prices?symbols=", "/v1/market/candles?symbol=", "/v1/notifications?unread="),
    *("/v1/market/candles?symbol=EUR/USD&from=", "/v1/market/candles?symbol=EUR/USD&interval=", "/v1/alerts?limit="),
]


@pytest.mark.parametrize("query", QUERIES)
async def test_query_parameter_is_typed_or_refused_by_name(world: InjectionWorld, query: str) -> None:
    mallory = meet(world)
    room = await mallory.create_room(type_="private")
    name = query.rpartition("?")[2].split("&")[-1].rstrip("=")
    for text in [*TEXTS, "[$ne]=1", "1e3", "\u0663", "9" * 400]:
        status, answer = await mallory.call("GET", query.format(room=room) + quote(text, safe=""))
        if status == 414:
            assert len(quote(text)) > 6_000
        elif status >= 400:
            error = refusal_of(status, answer)
            assert error["code"] == "NOT_FOUND" or field_of(error).partition("[")[0] == name, (text, answer)
        else:
            assert answer["data"] == [] or (name in ("ids", "q") and len(answer["data"]) <= 2), (text, answer)
    status, answer = await mallory.call("GET", query.format(room=room).removesuffix("=") + "[$ne]=zzz")
    if status >= 400:  # a parameter of another name is unknown
        refusal_of(status, answer)


async def test_search_term_is_a_literal_word_prefix(world: InjectionWorld) -> None:
    mallory = meet(world)
    word = f"w{secrets.token_hex(6)}"
    room = await mallory.create_room(f"Caf\u00e9 {word} 50% [x]", "private")

    async def found(text: str) -> list[str]:
        return [
            item["id"] for item in await mallory.data("GET", "/v1/chatrooms", params={"q": text, "type": "private"})
        ]

    for text in (word, word[:5], word.upper(), f"({word})", f"{word}.*", f"^{word}$", "50", "x", "cafe\u0301", "CAF"):
        assert await found(text) == [room], text
    for text in (".*", "^", "$", "\\", "[a-z]", f"{word}|", f".{word[1:]}", f"{word}x", "(?i)", "af", "\x00"):
        assert await found(text) == ([room] if text in (f"{word}|",) else []), text


# Frames -------------------------------------------------------------------------------------------------------------


FRAMES: list[tuple[dict[str, Any], str]] = [
    (frame, field)
    for frame in (
        {"type": "subscribe", "channel": "chatroom", "chatroomId": "r", "since": 1},
        {"type": "subscribe", "channel": "notifications", "userId": "u", "since": 1},
        {"type": "subscribe", "channel": "market", "symbols": ["A"], "maxRate": 1},
        {"type": "subscribe", "channel": "community", "communityId": "c"},
        {"type": "unsubscribe", "channel": "chatroom", "chatroomId": "r"},
        {"type": "chat:send", "chatroomId": "r", "message": "m", "clientMessageId": "c"},
        {"type": "chat:direct", "userId": "u", "message": "m", "clientMessageId": "c"},
        {"type": "chat:typing", "chatroomId": "r", "isTyping": True},
        {"type": "chat:read", "chatroomId": "r", "seq": 1},
        {"type": "presence:get", "userIds": ["u"]},
        {"type": "auth", "token": "t", "subscriptions": []},
        {"type": "ping"},
    )
    for field in frame
]


@pytest.mark.parametrize(("frame", "field"), FRAMES)
async def test_frame_field_is_text_or_refused_by_name(world: InjectionWorld, frame: dict[str, Any], field: str) -> None:
    mallory = meet(world)
    room = await mallory.create_room(type_="private")
    async with await mallory.live() as client:
        for value in [*OPERATORS, *TEXTS]:
            sent = {**frame, "chatroomId": room} if frame.get("chatroomId") else dict(frame)
            sent[field] = [value] if field in ("symbols", "userIds") else value
            if frame["type"] == "auth" and field != "type":
                break  # a refused token closes: see test_auth_attacks
            type_ = sent.pop("type")
            answer = await client.ask(type_, **sent)
            if answer["type"] != "error":
                assert isinstance(value, str) or field in ("since", "isTyping", "seq", "maxRate", "type"), answer
                continue
            data = answer["data"]
            expected = {"BAD_FRAME", "UNKNOWN_TYPE"} if field == "type" else CODES
            assert data["code"] in expected, (value, answer)
            if data["code"] == "VALIDATION":
                assert field_of(data).partition("[")[0] == field, (value, answer)
            if data["code"] == "BAD_FRAME":
                await client.barrier()  # ten in a row would close the socket


# Events -------------------------------------------------------------------------------------------------------------


def hostile_events(user_id: str) -> list[bytes]:
    """Return events with each part hostile in turn."""
    good = {"userId": user_id, "title": "t", "message": "m"}
    bodies = [
        cloud_event(f"{new_id(Prefix.COMMAND)}-{next(_events)}", type_, data, **more)
        for value in [*TEXTS, *OPERATORS]
        for type_, data, more in (
            ("notification.created", {**good, "userId": value}, {}),
            ("notification.created", {**good, "priority": value}, {}),
            ("session.started", {}, {"audience": value}),
            ("session.started", {}, {"audience": f"room:{value}"}),
            ("session.started", {}, {"audience": f"users:{user_id},{value}"}),
            ("post.created", {"communityId": value}, {}),
            ("user.banned", {"userId": value}, {}),
            ("user.revoked", {"userId": user_id + "x", "until": value}, {}),
            ("user.updated", {"userId": user_id, "firstName": value}, {}),
            ("market.tick", {"symbol": value, "price": 1.0}, {}),
            ("market.tick", [{"symbol": "A", "price": value}], {}),
            ("market.tick", {"symbol": "A", "price": 1.0, "timestamp": value}, {}),
        )
    ]
    for value in [*TEXTS, *OPERATORS]:
        bodies.append(json.dumps({**json.loads(bodies[0]), "id": value}).encode())
        bodies.append(json.dumps({**json.loads(bodies[0]), "type": value}).encode())
        bodies.append(json.dumps({**json.loads(bodies[0]), "source": value, "time": value}).encode())
    return bodies


async def test_hostile_event_is_a_dead_letter_or_plain_text(world: InjectionWorld) -> None:
    alice = meet(world, "alice")
    async with await alice.live() as client:
        await client.ask("subscribe", channel="notifications")
        await client.ask("subscribe", channel="market", symbols=["HOSTILE"])
        by_key: dict[str, list[bytes]] = {}
        for body in hostile_events(alice.id):
            by_key.setdefault(routing_key(body), []).append(body)
        for key, bodies in by_key.items():
            await publish(world.amqp_url, key, *bodies)
        data = {"userId": alice.id, "title": "\x00\t\n$where", "message": "last", "$set": {"a.b": {"$gt": 1}}, "": 1}
        await publish(
            world.amqp_url, "notification.created", cloud_event(new_id(Prefix.COMMAND), "notification.created", data)
        )
        notice = await client.take(lambda frame: frame["data"].get("message") == "last", timeout_s=30)
        shown = {
            name: value for name, value in notice["data"].items() if name not in ("id", "seq", "createdAt", "priority")
        }
        assert shown == data
        inbox = await alice.data("GET", "/v1/notifications?limit=1")
        assert inbox[0]["data"] == notice["data"]
        await publish(
            world.amqp_url,
            "market.tick",
            cloud_event(new_id(Prefix.COMMAND), "market.tick", {"symbol": "HOSTILE", "price": 2}),
        )
        await until_async(
            lambda: alice.data("GET", "/v1/market/prices?symbols=HOSTILE"), lambda prices: bool(prices), 30
        )
    async with await LiveClient.open(world.url) as bystander:
        assert (await bystander.ask("ping"))["type"] == "pong"


def routing_key(body: bytes) -> str:
    """Return the event's type, where it can be a routing key."""
    type_ = json.loads(body)["type"]
    return type_ if isinstance(type_, str) and 0 < len(type_.encode()) < 200 else "any.thing"


async def test_every_refusal_has_the_envelope(world: InjectionWorld) -> None:
    """Requests that reach no route."""
    async with aiohttp.ClientSession() as http:
        for path in ("/v1/chatrooms/%ff", "/v1/../v1/chatrooms", "/v1/chatrooms//messages", "//v1/live", "/%00"):
            async with http.get(f"{world.url}{path}") as response:
                body = await response.json()
                assert response.status in (401, 404), path
                assert body["status"] == response.status
