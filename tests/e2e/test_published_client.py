"""The JavaScript client published by the product's owner, unmodified, against the running system."""

from pathlib import Path

from shared.ids import Prefix, new_id
from tests.support.events import cloud_event, publish
from tests.support.local_system import LocalSystem
from tests.support.node import node_program
from tests.support.people import people
from tests.support.tokens import mint

HERE = Path(__file__).parent
PROGRAM = HERE / "published_client.mjs"
VERBATIM = HERE / "realtime_client.verbatim.js"

TOLD = {
    "title": "New Comment on Your Post",
    "message": "John Doe commented on your post",
    "priority": "medium",
}


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
