"""The end of a socket: frames that reach the client before the close."""

import asyncio
from typing import cast

from gateway.auth.identity import Identity
from gateway.fanout.wire import text_frame
from gateway.live.connections import Connections
from gateway.live.session import Close, Session
from gateway.live.socket import FAREWELL_BUFFER_MAX_BYTES, HIGH_WATER_BYTES, Socket
from gateway.settings import GatewaySettings
from shared.commands.command import Caller
from tests.support.waiting import until

SETTINGS = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32)
FAREWELL = Close(1012, "restarting", b"farewell")


class Transport:
    """Records writes; `unsent_bytes` is the amount that the client has not read."""

    def __init__(self) -> None:
        self.unsent_bytes = 0
        self.written: list[bytes] = []

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written.append(data)


class NoLink:
    def shut(self, code: int, reason: str) -> None:
        pass


def new_socket(connections: Connections | None = None) -> tuple[Socket, Transport]:
    transport = Transport()
    session = Session("sess_1", SETTINGS, 0.0)
    owner = connections or Connections(asyncio.get_running_loop().create_task)
    return Socket(owner, NoLink(), cast(asyncio.Transport, transport), session), transport


async def test_farewell_of_a_slow_socket_overtakes_its_queue() -> None:
    socket, transport = new_socket()
    transport.unsent_bytes = HIGH_WATER_BYTES + 1
    socket.send(b"waits")
    socket.close(FAREWELL)
    socket.send(b"too late")
    assert transport.written == [text_frame(b"farewell")]


async def test_farewell_is_dropped_when_the_transport_is_full() -> None:
    socket, transport = new_socket()
    transport.unsent_bytes = FAREWELL_BUFFER_MAX_BYTES + 1
    socket.close(FAREWELL)
    assert transport.written == []
    assert socket.closing


async def test_socket_is_closed_after_its_last_answer() -> None:
    socket, transport = new_socket()
    await socket.in_flight.begin()
    finishing = asyncio.ensure_future(socket.finish(FAREWELL, 10.0))
    await until(lambda: socket.in_flight.is_shut)
    assert not socket.closing
    socket.send(b"ack")
    socket.in_flight.end()
    await finishing
    assert transport.written == [text_frame(b"ack"), text_frame(b"farewell")]
    assert not socket.in_flight.is_shut


async def test_socket_without_an_answer_is_closed_after_the_timeout() -> None:
    socket, transport = new_socket()
    await socket.in_flight.begin()
    await socket.finish(FAREWELL, 0.01)
    assert transport.written == [text_frame(b"farewell")]


async def test_all_gone_waits_for_every_socket() -> None:
    connections = Connections(asyncio.get_running_loop().create_task)
    assert connections.all_gone.is_set()
    socket, _ = new_socket()
    connections.add(socket)
    assert not connections.all_gone.is_set()
    connections.remove(socket)
    assert connections.all_gone.is_set()


async def test_silent_socket_is_closed_within_a_second_after_its_timeout() -> None:
    connections = Connections(asyncio.get_running_loop().create_task)
    socket, _ = new_socket(connections)  # opened at 0.0
    connections.add(socket)
    socket.session.authenticated(expires(10**12))
    for now_s in range(1, round(SETTINGS.connection_timeout_s) + 1):
        connections.tick(now_s, now_s * 1000)
        assert not socket.closing
    connections.tick(SETTINGS.connection_timeout_s + 1, 61_000)
    assert socket.closing


async def test_token_expires_by_the_wall_clock_after_that_is_set() -> None:
    connections = Connections(asyncio.get_running_loop().create_task)
    socket, _ = new_socket(connections)
    connections.add(socket)
    socket.session.authenticated(expires(3_600_000))
    connections.tick(1.0, 1_000)
    connections.tick(2.0, 2_000)
    assert not socket.closing
    connections.tick(3.0, 3_600_000)
    assert socket.closing


def expires(at_ms: int) -> Identity:
    return Identity(caller=Caller(user_id="u"), expires_at_ms=at_ms, communities=None)


async def test_closing_sockets_do_not_count_as_connections_of_their_user() -> None:
    connections = Connections(asyncio.get_running_loop().create_task)
    sockets = [new_socket(connections)[0] for _ in range(3)]
    for socket in sockets:
        connections.identify(socket, "u")
    assert (connections.open_count("u"), connections.newest_open("u")) == (3, sockets[2])
    sockets[2].close(FAREWELL)
    sockets[2].mark_closing()  # again, when the read loop ends
    assert (connections.open_count("u"), connections.newest_open("u")) == (2, sockets[1])
    connections.remove(sockets[2])
    connections.remove(sockets[0])
    assert (connections.open_count("u"), connections.newest_open("u")) == (1, sockets[1])
    connections.remove(sockets[1])
    assert (connections.open_count("u"), connections.newest_open("u")) == (0, None)
    assert connections.by_user == {}
