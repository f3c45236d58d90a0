"""permessage-deflate on the real wire: clients with and without it exchange the same messages."""

import re

from aiohttp import ClientSession, ClientWebSocketResponse

from tests.security.raw_socket import RawSocket
from tests.support.people import people
from tests.support.services import chat_service, gateway_alone
from tests.support.tokens import mint

TEXT = "EUR/USD breaks resistance. " * 40


async def joined(http: ClientSession, url: str, user_id: str, room: str, compress: int) -> ClientWebSocketResponse:
    socket = await http.ws_connect(f"{url}/v1/live", compress=compress)
    subscription = {"channel": "chatroom", "chatroomId": room}
    await socket.send_json({"type": "auth", "token": mint(user_id), "subscriptions": [subscription]})
    assert (await socket.receive_json(timeout=10))["type"] == "auth:ok"
    assert (await socket.receive_json(timeout=10))["type"] == "subscribed"
    return socket


async def next_message(socket: ClientWebSocketResponse) -> str:
    while (frame := await socket.receive_json(timeout=10))["type"] != "chat:message":
        pass
    return str(frame["data"]["message"])


async def test_compressed_and_plain_sockets_share_a_room(amqp_url: str, mongodb_uri: str, database_name: str) -> None:
    async with chat_service(amqp_url, mongodb_uri, database_name), gateway_alone(amqp_url, compression=True) as url:
        room = await people(url)("ann").create_room()
        async with ClientSession() as http:
            packed, plain = await joined(http, url, "ben", room, 15), await joined(http, url, "cat", room, 0)
            assert (packed.compress, plain.compress) == (15, 0)
            for number in range(3):
                await packed.send_json({"type": "chat:send", "chatroomId": room, "message": f"{number} {TEXT}"})
                for socket in (packed, plain):
                    assert await next_message(socket) == f"{number} {TEXT}"


async def test_compression_is_off_by_default(amqp_url: str, mongodb_uri: str, database_name: str) -> None:
    async with (
        chat_service(amqp_url, mongodb_uri, database_name),
        gateway_alone(amqp_url) as url,
        ClientSession() as http,
        http.ws_connect(f"{url}/v1/live", compress=15) as socket,
    ):
        assert socket.compress == 0


OFFERS = {
    "permessage-deflate": set[str](),
    "permessage-deflate; server_max_window_bits=15": {"server_max_window_bits=15"},
    "permessage-deflate; server_max_window_bits=12": {"server_max_window_bits=12"},
    "permessage-deflate; client_max_window_bits; server_max_window_bits=15": {"server_max_window_bits=15"},
}


async def test_answer_names_the_window_that_the_offer_names(
    amqp_url: str, mongodb_uri: str, database_name: str
) -> None:
    async with chat_service(amqp_url, mongodb_uri, database_name), gateway_alone(amqp_url, compression=True) as url:
        for offer, expected in OFFERS.items():
            async with await RawSocket.upgraded(url, f"Sec-WebSocket-Extensions: {offer}") as socket:
                found = re.search(r"(?i)sec-websocket-extensions: ([^\r]*)", socket.head.decode())
            assert found is not None
            name, *parameters = [part.strip() for part in found[1].split(";")]
            assert name == "permessage-deflate"
            assert {part for part in parameters if part.startswith("server_max_window_bits")} == expected
            assert len(parameters) == len(set(parameters))
