"""Events of a room or of one user reach no one else: two gateways, the real wire."""

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import aiohttp
import pytest

from shared.ids import Prefix, new_id
from tests.support.events import cloud_event, publish
from tests.support.infrastructure import Infrastructure
from tests.support.live_client import LiveClient
from tests.support.people import Person, people
from tests.support.queues import empty_queues
from tests.support.raw_answers import RawAnswer, RecordingSocket, rest
from tests.support.services import chat_service, gateway, market_feed, notifier
from tests.support.tokens import mint

HAPPENINGS = {
    *("chat:message", "chat:typing", "chat:read", "member:joined", "member:left"),
    *("user:online", "user:offline", "chatroom:updated", "session:started", "chatroom:deleted"),
}
OFFLINE_TIMEOUT_S = 20.0

_events = itertools.count(1)


class SilentWorld(NamedTuple):
    """A running system: two gateways and the broker."""

    url: str
    other_url: str
    amqp_url: str

    async def publish(self, type_: str, data: Any, **more: Any) -> None:
        """Publish an event of an internal service."""
        await publish(
            self.amqp_url, type_, cloud_event(f"{new_id(Prefix.COMMAND)}-{next(_events)}", type_, data, **more)
        )


@pytest.fixture(scope="module")
async def world(infrastructure: Infrastructure) -> AsyncIterator[SilentWorld]:
    await empty_queues(infrastructure.amqp_url)
    system = infrastructure.amqp_url, infrastructure.mongodb_uri, new_id(Prefix.COMMAND)
    async with (
        chat_service(*system),
        notifier(*system),
        market_feed(*system),
        gateway(infrastructure.amqp_url) as first,
        gateway(infrastructure.amqp_url) as second,
    ):
        yield SilentWorld(first, second, infrastructure.amqp_url)


async def lists_of(url: str, person: Person, *words: str) -> list[RawAnswer]:
    """Return a person's room lists, as bytes."""
    token = mint(person.id)
    queries = ["", "?type=private", "?type=group", "?page=2&limit=1", *(f"?q={word}" for word in words)]
    async with aiohttp.ClientSession() as http:
        return [await rest(http, token, "GET", f"{url}/v1/chatrooms{query}", None) for query in queries]


async def subscribe(client: LiveClient, room: str) -> str:
    """Return the type of the answer."""
    return str((await client.ask("subscribe", channel="chatroom", chatroomId=room, since=0))["type"])


async def frames_after_barrier(client: LiveClient) -> list[Any]:
    """Return all frames that have arrived and were not read."""
    await client.barrier()
    return client.frames


async def everything_happens(
    world: SilentWorld, room: str, alice: Person, listener: LiveClient, guest: Person
) -> set[str]:
    """Make every kind of event happen in a room; return the types of the frames that a member received."""
    path = f"/v1/chatrooms/{room}"
    received = []
    await alice.data("PUT", f"{path}/members/{guest.id}")
    async with await guest.live() as visitor:
        received.append(await listener.take(lambda frame: frame["type"] == "user:online" and guest.id in str(frame)))
        first = await alice.data("POST", f"{path}/messages", json={"message": "more"})
        await visitor.ask("chat:read", chatroomId=room, seq=first["seq"])
    async with await alice.live() as speaker:
        await speaker.ask("chat:typing", chatroomId=room, isTyping=True)
        await speaker.ask("chat:send", chatroomId=room, message="secret")
        await alice.data("PUT", path, json={"description": "secret"})
        await world.publish("session.started", {"sessionId": "s"}, audience=f"room:{room}")
        received.append(await listener.next("session:started"))
        received.append(
            await listener.next("user:offline", timeout_s=OFFLINE_TIMEOUT_S)
        )  # 5 s after the guest has gone
        await alice.data("DELETE", f"{path}/members/{guest.id}")
        await alice.data("DELETE", path)
        received.append(await listener.next("chatroom:deleted"))
    return {frame["type"] for frame in [*received, *listener.frames]}


async def test_room_events_do_not_reach_outsiders(world: SilentWorld) -> None:
    meet, word = people(world.url), f"w{secrets.token_hex(6)}"
    alice, carol, guest = meet("alice"), meet("carol"), meet("guest")
    removed, left, stranger, admin = meet("removed"), meet("left"), meet("stranger"), meet("admin", role="admin")
    room = await alice.create_room(word, "private", memberIds=[carol.id, removed.id, left.id])
    path = f"/v1/chatrooms/{room}"
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(await carol.live())
        assert await subscribe(listener, room) == "subscribed"
        outside = {
            person.id: await stack.enter_async_context(await person.live(world.other_url))
            for person in (removed, left, stranger, admin)
        }
        for person, answer in ((removed, "subscribed"), (left, "subscribed"), (stranger, "error"), (admin, "error")):
            await outside[person.id].ask("subscribe", channel="notifications")
            assert await subscribe(outside[person.id], room) == answer
        await alice.data("DELETE", f"{path}/members/{removed.id}")
        await left.data("POST", f"{path}/leave")
        await alice.data("POST", f"{path}/messages", json={"message": "behind their backs"})
        before = {person.id: await lists_of(world.url, person, word) for person in (removed, left, stranger, admin)}
        for person in (removed, left):
            assert "behind" not in str(await frames_after_barrier(outside[person.id]))
            outside[person.id].frames.clear()  # from the time of their membership

        assert await everything_happens(world, room, alice, listener, guest) >= HAPPENINGS
        for person in (removed, left, stranger, admin):
            assert await frames_after_barrier(outside[person.id]) == [], person.id
            assert await lists_of(world.url, person, word) == before[person.id]


async def test_direct_room_is_silent_to_all_but_its_two_users(world: SilentWorld) -> None:
    meet = people(world.url)
    alice, carol, stranger = meet("alice"), meet("carol"), meet("stranger")
    before = await lists_of(world.url, stranger, "direct")
    async with await alice.live() as one, await carol.live() as other, await stranger.live() as third:
        await third.ask("subscribe", channel="notifications")
        room = (await one.ask("chat:direct", userId=carol.id, message="secret"))["data"]["chatroomId"]
        assert await subscribe(third, room) == "error"
        await other.ask("chat:typing", chatroomId=room, isTyping=True)
        await other.ask("chat:read", chatroomId=room, seq=1)
        await other.ask("chat:send", chatroomId=room, message="answer")
        await world.publish("session.started", {"sessionId": "s"}, audience=f"room:{room}")
        for type_ in ("chat:typing", "chat:read", "session:started"):
            await one.next(type_)
        assert await frames_after_barrier(third) == []
    assert await lists_of(world.url, stranger, "direct") == before


async def test_public_room_that_turns_private_falls_silent_at_once(world: SilentWorld) -> None:
    meet = people(world.url)
    alice, stranger = meet("alice"), meet("stranger")
    room = await alice.create_room()
    async with await alice.live() as inside, await stranger.live(world.other_url) as outside:
        assert await subscribe(outside, room) == "subscribed"
        assert await subscribe(inside, room) == "subscribed"
        await alice.data("PUT", f"/v1/chatrooms/{room}", json={"type": "private"})
        for text in ("a", "b"):
            await inside.ask("chat:send", chatroomId=room, message=text)
        await inside.next("chat:message")
        await inside.next("chat:message")
        assert await subscribe(outside, room) == "error"  # the earlier check is answered before this one
        shown = {frame["type"] for frame in await frames_after_barrier(outside)}
        assert shown <= {"user:online", "unsubscribed"}


async def test_items_of_another_user_answer_like_missing_ones(world: SilentWorld) -> None:
    meet = people(world.url)
    alice, bob = meet("alice"), meet("bob")
    alert = await alice.data("POST", "/v1/alerts", json={"symbol": "EUR/USD", "direction": "above", "price": 9})
    async with await alice.live() as socket:
        await socket.ask("subscribe", channel="notifications")
        await world.publish("notification.created", {"userId": alice.id, "title": "t", "message": "secret"})
        notification = (await socket.data("notification:new"))["id"]
    token = mint(bob.id)
    async with aiohttp.ClientSession() as http:
        for method, path, own, never in (
            ("DELETE", "/v1/alerts/%s", alert["id"], new_id(Prefix.ALERT)),
            ("POST", "/v1/notifications/%s/read", notification, new_id(Prefix.NOTIFICATION)),
        ):
            answers = [await rest(http, token, method, world.url + path % id_, None) for id_ in (own, never)]
            assert answers[0].outcome == "404"
            assert answers[0].without(own) == answers[1].without(never)
        ws = await RecordingSocket.open(http, world.url, token)
        asked = [
            (await ws.ask({"type": "subscribe", "channel": "notifications", "userId": id_})).without(id_)
            for id_ in (alice.id, "nobody-at-all")
        ]
        assert asked[0].outcome == "FORBIDDEN"
        assert asked[0] == asked[1]
    assert await bob.data("GET", "/v1/alerts") == []
    assert await bob.data("GET", "/v1/notifications") == []
    assert await bob.data("GET", "/v1/notifications/unread-count") == {"unreadCount": 0}
    assert await bob.data("POST", "/v1/notifications/read-all") == {"unreadCount": 0}
    assert await alice.data("GET", "/v1/notifications/unread-count") == {"unreadCount": 1}
    assert [item["id"] for item in await alice.data("GET", "/v1/alerts")] == [alert["id"]]


async def test_read_mark_is_private_to_its_owner(world: SilentWorld) -> None:
    meet = people(world.url)
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room(type_="private", memberIds=[bob.id])
    await alice.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "m"})
    await alice.data("POST", f"/v1/chatrooms/{room}/read", json={"seq": 1, "userId": bob.id})
    assert (await bob.data("GET", f"/v1/chatrooms/{room}"))["unreadCount"] == 1
    assert (await alice.data("GET", f"/v1/chatrooms/{room}"))["unreadCount"] == 0
    members = await alice.data("GET", f"/v1/chatrooms/{room}/members")
    assert {name for member in members for name in member} == {
        *("userId", "user", "role", "joinedAt", "status", "lastSeenAt"),
    }
