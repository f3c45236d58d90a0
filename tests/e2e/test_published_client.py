"""The JavaScript client published by the product's owner, unmodified, against the running system."""

from pathlib import Path
from urllib.parse import quote

from shared.ids import Prefix, new_id
from tests.support.events import cloud_event, publish
from tests.support.local_system import LocalSystem
from tests.support.node import node_program
from tests.support.people import Person, people
from tests.support.tokens import mint

HERE = Path(__file__).parent
PROGRAM = HERE / "published_client.mjs"
VERBATIM = HERE / "realtime_client.verbatim.js"

TOLD = {
    "title": "New Comment on Your Post",
    "message": "John Doe commented on your post",
    "priority": "medium",
}


WITH_SEQ = {"subscribed", "chat:ack", "chat:message", "chat:read", "notification:new", "market:price"}  # first part


async def change_messages(author: Person, mentioned: str, room: str) -> None:
    """Fill a room with entries of every kind of the second part of the protocol."""
    path = f"/v1/chatrooms/{room}/messages"
    extras = {"attachments": [{"kind": "image", "url": "https://example.com/a.png"}], "symbols": ["EUR/USD"]}
    first = await author.data("POST", path, json={"message": "first", "mentions": [mentioned], **extras})
    second = await author.data("POST", path, json={"message": "second", "replyTo": first["id"], "mentionRoom": True})
    await author.data("PATCH", f"{path}/{first['id']}", json={"message": "edited"})
    await author.data("PUT", f"{path}/{first['id']}/reactions/{quote('👍')}")
    await author.data("PUT", f"/v1/chatrooms/{room}/pins/{first['id']}")
    await author.data("DELETE", f"/v1/chatrooms/{room}/pins/{first['id']}")
    await author.data("DELETE", f"{path}/{second['id']}")


async def notify(amqp_url: str, user_id: str) -> None:
    """Publish the notification from the API reference."""
    data = TOLD | {"userId": user_id}
    body = cloud_event(new_id(Prefix.COMMAND), "notification.created", data)
    await publish(amqp_url, "notification.created", body)


def test_published_class_is_verbatim() -> None:
    verbatim = VERBATIM.read_text()
    assert verbatim.startswith("class RealtimeClient {\n")
    assert f"// Verbatim from here\n{verbatim}// to here\n" in PROGRAM.read_text()


async def test_published_client_receives_chat_prices_and_notifications(system: LocalSystem) -> None:
    entries = system.entries()
    john = people(entries["GATEWAY_URL"])("john", firstName="John", lastName="Doe")
    room = await john.create_room()
    token = mint(john.id, firstName="John", lastName="Doe")
    async with node_program(
        PROGRAM, GATEWAY_WS_URL=entries["GATEWAY_WS_URL"], TOKEN=token, USER_ID=john.id, ROOM_ID=room
    ) as program:
        await program.read_types("subscribed", 3)
        await notify(entries["AMQP_URL"], john.id)
        assert await program.exit_code() == 0
    assert program.data("auth:ok")[0]["userId"] == john.id
    assert [answer["channel"] for answer in program.data("subscribed")] == ["chatroom", "market", "notifications"]
    message, price, notification = (
        program.data(type_)[0] for type_ in ("chat:message", "market:price", "notification:new")
    )
    assert {"chatroomId": room, "userId": john.id, "message": "Hello everyone!"}.items() <= message.items()
    assert {"messageId", "timestamp"} <= message.keys()
    assert price["symbol"] in {"EUR/USD", "GBP/JPY"}
    assert {"price", "change", "changePercent"} <= price.keys()
    assert {name: notification[name] for name in TOLD} == TOLD
    assert notification["id"].startswith("notif_")
    assert program.data("error") == []
    (stored,) = await john.data("GET", f"/v1/chatrooms/{room}/messages")
    assert (stored["id"], stored["user"]["firstName"]) == (message["messageId"], "John")


async def test_published_client_runs_in_room_full_of_changes(system: LocalSystem) -> None:
    entries = system.entries()
    meet = people(entries["GATEWAY_URL"])
    john, ann = meet("john"), meet("ann")
    room = await ann.create_room(memberIds=[john.id])
    await change_messages(ann, john.id, room)
    async with node_program(
        PROGRAM, GATEWAY_WS_URL=entries["GATEWAY_WS_URL"], TOKEN=mint(john.id), USER_ID=john.id, ROOM_ID=room
    ) as program:
        await program.read_types("subscribed", 3)
        await change_messages(ann, john.id, room)
        await notify(entries["AMQP_URL"], john.id)
        assert await program.exit_code() == 0
    assert {message["chatroomId"] for message in program.data("chat:message")} == {room}
    assert program.data("notification:new")[0]["id"].startswith("notif_")
    assert program.data("error") == []


async def test_first_part_subscriptions_receive_no_new_seq(system: LocalSystem) -> None:
    meet = people(system.entries()["GATEWAY_URL"])
    john, ann = meet("john"), meet("ann")
    room = await ann.create_room(memberIds=[john.id])
    await change_messages(ann, john.id, room)
    async with await john.live() as client:
        frames = [
            await client.ask("subscribe", channel="chatroom", chatroomId=room, since=0),
            await client.ask("subscribe", channel="notifications", since=0),
            await client.ask("subscribe", channel="market", symbols=["EUR/USD"]),
        ]
        await change_messages(ann, john.id, room)
        last = await ann.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": "last"})
        frames.append(await client.take(lambda frame: frame["data"].get("messageId") == last["id"]))
        frames += client.frames
    assert {frame["type"] for frame in frames} >= {"chat:message", "chat:updated", "chat:reaction", "chat:pinned"}
    assert {frame["type"] for frame in frames if "seq" in frame["data"]} <= WITH_SEQ
    messages = [frame["data"] for frame in frames if frame["type"] == "chat:message"]
    assert [message["seq"] for message in sorted(messages, key=lambda message: message["seq"])] == [1, 2, 3, 4, 5]
