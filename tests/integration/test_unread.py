"""Unread messages and mentions over REST: real services, broker and database."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.live_client import RestClient
from tests.support.services import chat_service, gateway_alone

UNREAD = "/v1/chatrooms/unread"


@pytest.fixture
async def url(amqp_url: str, mongodb_uri: str, database_name: str) -> AsyncIterator[str]:
    async with chat_service(amqp_url, mongodb_uri, database_name), gateway_alone(amqp_url) as url:
        yield url


async def unread(url: str, user_id: str) -> Any:
    found = await RestClient(url, user_id).data("GET", UNREAD)
    counts = {room["chatroomId"]: (room["unreadCount"], room["mentionCount"]) for room in found["rooms"]}
    return found["unreadTotal"], found["mentionTotal"], counts


async def send(url: str, user_id: str, room_id: str, **fields: Any) -> Any:
    body = {"message": "EUR/USD", **fields}
    return await RestClient(url, user_id).data("POST", f"/v1/chatrooms/{room_id}/messages", json=body)


async def test_counts_follow_messages_mentions_reads_and_changes(url: str) -> None:
    room = await RestClient(url, "ann").create_room(type="private", memberIds=["ben", "cat"])
    quiet = await RestClient(url, "ann").create_room(type="private", memberIds=["ben"])
    assert await unread(url, "ben") == (0, 0, {})
    plain = await send(url, "ann", room)
    named = await send(url, "ann", room, mentions=["ben", "cat"])
    await send(url, "ann", room, mentionRoom=True, mentions=["ben"])  # one message, counted once
    direct = await RestClient(url, "cat").data(
        "POST", "/v1/messages/direct", json={"userId": "ben", "message": "hi", "mentions": ["ben"]}
    )
    assert await unread(url, "ben") == (4, 3, {room: (3, 2), direct["chatroomId"]: (1, 1)})
    assert await unread(url, "ann") == (0, 0, {})
    path = f"/v1/chatrooms/{room}/messages"
    await RestClient(url, "ann").data("PATCH", f"{path}/{plain['id']}", json={"message": "x", "mentions": ["ben"]})
    await RestClient(url, "ann").data("DELETE", f"{path}/{named['id']}")
    assert await unread(url, "ben") == (4, 3, {room: (3, 2), direct["chatroomId"]: (1, 1)})
    assert (await unread(url, "cat"))[2] == {room: (3, 1)}
    await RestClient(url, "ben").data("POST", f"/v1/chatrooms/{room}/read", json={"seq": 2})
    assert (await unread(url, "ben"))[2][room] == (1, 1)
    await send(url, "ben", room)  # writing moves the mark
    assert (await unread(url, "ben"))[2] == {direct["chatroomId"]: (1, 1)}
    await RestClient(url, "ann").data("DELETE", f"/v1/chatrooms/{room}/members/cat")
    assert await unread(url, "cat") == (0, 0, {})
    assert quiet not in (await unread(url, "ben"))[2]


async def test_stranger_of_a_public_room_has_no_counts(url: str) -> None:
    room = await RestClient(url, "ann").create_room()
    await send(url, "ann", room, mentions=["ben"])
    assert await unread(url, "ben") == (0, 0, {})
    await RestClient(url, "ben").data("POST", f"/v1/chatrooms/{room}/join")
    await send(url, "ann", room, mentions=["ben"])
    assert await unread(url, "ben") == (1, 1, {room: (1, 1)})
