"""Every frame of the running system matches the AsyncAPI document; every type except `server:drain` occurs."""

import asyncio
from collections.abc import Mapping
from typing import Any

from shared.ids import Prefix, new_id
from shared.protocol.server_frames import SERVER_FRAMES
from tests.support.documents import frame_validator
from tests.support.events import cloud_event, publish
from tests.support.live_client import Frame, LiveClient
from tests.support.local_system import LocalSystem
from tests.support.people import Person, people
from tests.support.tokens import mint

COMMUNITY = "community_789"
EVENTS: list[tuple[str, dict[str, Any]]] = [
    ("post.created", {"postId": "post_123", "userId": "user_456", "communityId": COMMUNITY, "content": "New!"}),
    ("trade.created", {"tradeId": "trade_456", "symbol": "EUR/USD", "direction": "buy", "entryPrice": 1.085}),
    ("session.started", {"sessionId": "s", "title": "t", "speakerId": "u", "startedAt": "2025-10-21T14:00:00.000Z"}),
    ("session.ended", {"sessionId": "s", "endedAt": "2025-10-21T15:00:00.000Z"}),
]


class Witness:
    """A socket that keeps all frames, including those that a test waited for."""

    def __init__(self, client: LiveClient) -> None:
        self.client = client
        self.seen: list[Frame] = []

    async def ask(self, type_: str, **fields: Any) -> Frame:
        answer = await self.client.ask(type_, **fields)
        self.seen.append(answer)
        return answer

    async def next(self, type_: str) -> Frame:
        frame = await self.client.next(type_, timeout_s=30.0)
        self.seen.append(frame)
        return frame


async def watch(url: str, token: str, room: str) -> Witness:
    witness = Witness(await LiveClient.open(url))
    assert (await witness.ask("auth", token=token))["type"] == "auth:ok"
    for channel, fields in (
        ("chatroom", {"chatroomId": room}),
        ("notifications", {}),
        ("market", {"symbols": ["EUR/USD", "NOPE"]}),
        ("community", {"communityId": COMMUNITY}),
        ("activity", {}),
    ):
        assert (await witness.ask("subscribe", channel=channel, **fields))["type"] == "subscribed"
    return witness


async def change_a_message(acting: Witness, author: Person, room: str) -> None:
    """Send a message with everything that one may have, and change it in every way."""
    attachment = {"kind": "image", "url": "https://example.com/chart.png", "name": "chart", "width": 640}
    extras = {"mentions": [author.id], "mentionRoom": True, "attachments": [attachment], "symbols": ["EUR/USD"]}
    first = await acting.ask("chat:send", chatroomId=room, message="first", **extras)
    message = {"chatroomId": room, "messageId": first["data"]["messageId"]}
    await acting.ask("chat:send", chatroomId=room, message="reply", replyTo=message["messageId"])
    await acting.ask("chat:edit", **message, message="edited")
    await acting.ask("chat:react", **message, emoji="👍")
    await author.data("PUT", f"/v1/chatrooms/{room}/pins/{message['messageId']}")
    await acting.ask("chat:delete", **message)


async def happen(entries: Mapping[str, str], alice: Person, bob: Person, room: str, large_room: str) -> list[Frame]:
    """Perform every action of two users in a room and return all frames that both received."""
    url, amqp_url, secret = entries["GATEWAY_URL"], entries["AMQP_URL"], entries["JWT_SECRET"]
    seeing = await watch(url, mint(bob.id, secret=secret), room)
    await seeing.ask("subscribe", channel="chatroom", chatroomId=large_room)
    acting = await watch(url, mint(alice.id, secret=secret), room)
    try:
        await acting.ask("chat:send", chatroomId=room, message="hello", clientMessageId="c1")
        await acting.ask("chat:direct", userId=bob.id, message="psst")
        await change_a_message(acting, alice, room)
        await acting.ask("chat:typing", chatroomId=room, isTyping=True)
        await seeing.ask("chat:read", chatroomId=room, seq=1)
        await acting.ask("presence:get", userIds=[alice.id, "nobody"])
        await acting.ask("ping")
        await acting.ask("dance")
        await acting.ask("chat:send", chatroomId="room_none", message="x")
        await acting.ask("subscribe", channel="market", symbols=[""])
        for type_ in ("market:price", "chat:message", "chat:typing"):
            await seeing.next(type_)
        for type_, data in EVENTS:
            await publish(amqp_url, type_, cloud_event(new_id(Prefix.EVENT), type_, data))
            await seeing.next(type_.replace(".", ":"))
        notification = {"userId": bob.id, "title": "t", "message": "m"}
        await publish(
            amqp_url, "notification.created", cloud_event(new_id(Prefix.EVENT), "notification.created", notification)
        )
        await seeing.next("notification:new")
        await alice.data("PUT", f"/v1/chatrooms/{room}/members/carol")
        await seeing.next("member:joined")
        await alice.data("DELETE", f"/v1/chatrooms/{room}/members/carol")
        await seeing.next("member:left")
        await alice.data("PUT", f"/v1/chatrooms/{room}", json={"name": "Renamed"})
        await seeing.next("chatroom:updated")
        await acting.ask("unsubscribe", channel="notifications")
        await acting.ask("unsubscribe", channel="market", symbols=["EUR/USD"])
        await acting.ask("unsubscribe", channel="community", communityId=COMMUNITY)
        acting.seen += acting.client.frames
        await acting.client.close()
        await seeing.next("user:offline")
        await seeing.next("room:presence")
        await alice.create_room("Invitation", memberIds=[bob.id])
        await seeing.next("member:invited")
        await alice.data("DELETE", f"/v1/chatrooms/{room}")
        await seeing.next("chatroom:deleted")
    finally:
        await asyncio.gather(seeing.client.close(), acting.client.close())
    return [*acting.seen, *seeing.seen, *seeing.client.frames]


async def test_every_frame_matches_asyncapi_document(system: LocalSystem) -> None:
    entries = system.entries()
    meet = people(entries["GATEWAY_URL"], entries["JWT_SECRET"])
    alice, bob = meet("alice"), meet("bob")
    room = await alice.create_room("Frames", memberIds=[bob.id])
    crowd = [f"crowd_{number}" for number in range(20)]  # with alice and bob more than PRESENCE_ROOM_MAX
    large_room = await alice.create_room("Large", memberIds=[bob.id, *crowd])
    frames = await happen(entries, alice, bob, room, large_room)
    for frame in frames:
        frame_validator("server", frame["type"]).validate(frame)
        assert set(frame) <= {"type", "id", "data"}
    assert {frame["type"] for frame in frames} == set(SERVER_FRAMES) - {"server:drain"}
