"""This project's JavaScript client under Node against the running system."""

from pathlib import Path

from tests.e2e.test_published_client import notify
from tests.support.local_system import LocalSystem
from tests.support.node import node_program
from tests.support.people import people
from tests.support.tokens import mint

PROGRAM = Path(__file__).parent / "realtime_client_as_published.mjs"


async def test_client_supports_published_usage(system: LocalSystem) -> None:
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
    (message,), (price, *_), (notification,) = map(program.data, ("chat:message", "market:price", "notification:new"))
    assert {"chatroomId": room, "userId": john.id, "message": "Hello everyone!"}.items() <= message.items()
    assert price["symbol"] in {"EUR/USD", "GBP/JPY"}
    assert notification["title"] == "New Comment on Your Post"
    assert program.data("error") == []
