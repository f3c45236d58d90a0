"""The channel `activity` over the wire: two gateways, real services, broker and database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.live_client import Frame, LiveClient, RestClient
from tests.support.services import chat_service, gateway_alone
from tests.support.tokens import mint

Urls = tuple[str, str]


@pytest.fixture
async def urls(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[Urls]:
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        gateway_alone(amqp_url) as first,
        gateway_alone(amqp_url) as second,
    ):
        yield first, second


async def follow(client: LiveClient) -> Any:
    answer = await client.ask("subscribe", channel="activity")
    assert answer["type"] == "subscribed", answer
    return answer["data"]


def of_room(frame: Frame, room_id: str) -> Any:
    """Return the part of a room:activity frame about a room, if there is one."""
    if frame["type"] != "room:activity":
        return None
    return next((room for room in frame["data"]["rooms"] if room["chatroomId"] == room_id), None)


async def latest(client: LiveClient, room_id: str, seq: int) -> None:
    """Wait until the room's newest message is `seq`."""
    await client.take(lambda frame: (of_room(frame, room_id) or {}).get("latest") == seq)


def unread(room_id: str, count: int, mentions: int) -> Callable[[Frame], bool]:
    data = {"chatroomId": room_id, "unreadCount": count, "mentionCount": mentions}
    return lambda frame: frame["type"] == "room:unread" and frame["data"] == data


async def send(url: str, user_id: str, room_id: str, **fields: Any) -> Any:
    body = {"message": "EUR/USD", **fields}
    return await RestClient(url, user_id).data("POST", f"/v1/chatrooms/{room_id}/messages", json=body)


async def test_rooms_with_messages_and_counts_arrive(urls: Urls) -> None:
    first, second = urls
    room = await RestClient(first, "ann").create_room(type="private", memberIds=["ben"])
    await send(first, "ann", room, mentions=["ben"])
    async with await LiveClient.as_user(second, "ben") as ben, await LiveClient.as_user(first, "ben") as phone:
        data = await follow(ben)
        assert data["rooms"][0].pop("lastMessageAt")
        shown = {"chatroomId": room, "seq": 1, "unreadCount": 1, "mentionCount": 1}
        assert data == {"channel": "activity", "rooms": [shown], "unreadTotal": 1, "mentionTotal": 1}
        sent = await send(first, "ann", room)
        frame = await ben.next("room:activity")
        assert frame["data"] == {"rooms": [{"chatroomId": room, "at": sent["createdAt"], "latest": 2}]}
        await send(first, "ann", room, mentionRoom=True)
        await ben.take(unread(room, 3, 2))
        await phone.ask("chat:read", chatroomId=room, seq=2)
        await ben.take(unread(room, 1, 1))
        await send(first, "ben", room)
        await ben.take(unread(room, 0, 0))
        assert {frame["type"] for frame in ben.frames} <= {"room:activity", "chat:read"}
        assert (await ben.ask("unsubscribe", channel="activity"))["data"] == {"channel": "activity"}


async def test_rooms_come_and_go_with_memberships(urls: Urls) -> None:
    first, second = urls
    ann = RestClient(first, "ann")
    async with await LiveClient.as_user(second, "ben") as ben:
        assert (await follow(ben))["rooms"] == []
        invited = await ann.create_room(type="private", memberIds=["ben"])
        await send(first, "ann", invited)
        await latest(ben, invited, 1)
        public = await ann.create_room()
        await send(first, "ben", public)
        await ben.take(unread(public, 0, 0))
        direct = await ann.data("POST", "/v1/messages/direct", json={"userId": "ben", "message": "hi"})
        await latest(ben, direct["chatroomId"], 1)
        await ann.data("DELETE", f"/v1/chatrooms/{invited}/members/ben")
        await ann.data("DELETE", f"/v1/chatrooms/{public}/members/ben")
        await send(first, "ann", invited)
        await send(first, "ann", public)
        await send(first, "ann", public)
        ben.frames.clear()
        await RestClient(first, "ben").data("POST", f"/v1/chatrooms/{public}/join")
        await send(first, "ann", public)
        await latest(ben, public, 4)
        assert not [frame for frame in ben.frames if of_room(frame, invited)]
        await ben.take(unread(public, 1, 0))
        await ann.data("DELETE", f"/v1/chatrooms/{public}")
        answer = await follow(ben)
        assert [room["chatroomId"] for room in answer["rooms"]] == [direct["chatroomId"]]


async def test_edits_and_deletions_change_the_mentions(urls: Urls) -> None:
    first, second = urls
    room = await RestClient(first, "ann").create_room(type="private", memberIds=["ben"])
    sent = await send(first, "ann", room)
    path = f"/v1/chatrooms/{room}/messages/{sent['id']}"
    async with await LiveClient.as_user(second, "ben") as ben:
        await follow(ben)
        await RestClient(first, "ann").data("PATCH", path, json={"message": "@ben", "mentions": ["ben"]})
        await ben.take(unread(room, 1, 1))
        await RestClient(first, "ann").data("DELETE", path)
        await ben.take(unread(room, 1, 0))


async def test_burst_makes_one_frame_a_second_and_the_newest_arrives(urls: Urls) -> None:
    first, second = urls
    rooms = [await RestClient(first, "ann").create_room(type="private", memberIds=["ben"]) for _ in range(3)]
    async with await LiveClient.as_user(second, "ben") as ben, await LiveClient.as_user(first, "ann") as ann:
        await follow(ben)
        began_s = asyncio.get_running_loop().time()
        for _ in range(15):
            for room in rooms:
                assert (await ann.ask("chat:send", chatroomId=room, message="x"))["type"] == "chat:ack"
        seen: dict[str, int] = {}
        frames = 0
        while seen != dict.fromkeys(rooms, 15):
            frame = await ben.next("room:activity")
            frames += 1
            seen |= {item["chatroomId"]: item["latest"] for item in frame["data"]["rooms"]}
        assert frames <= asyncio.get_running_loop().time() - began_s + 2


async def test_subscription_may_come_with_auth(urls: Urls) -> None:
    room = await RestClient(urls[0], "ann").create_room()
    async with await LiveClient.open(urls[1]) as ann:
        await ann.send("auth", token=mint("ann"), subscriptions=[{"channel": "activity"}])
        await ann.next("auth:ok")
        data = await ann.data("subscribed")
        assert [item["chatroomId"] for item in data["rooms"]] == [room]
        assert "lastMessageAt" not in data["rooms"][0]
