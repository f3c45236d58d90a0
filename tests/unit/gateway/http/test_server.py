"""Connections of the HTTP server, and whether they are idle."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from gateway.admission.open_connections import FILES_RESERVED, OpenConnections
from gateway.admission.pace import Pace
from gateway.admission.refused import Refused
from gateway.http.server import Runner
from gateway.settings import GatewaySettings
from tests.support.waiting import until

REQUEST = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
ONE_CONNECTION = FILES_RESERVED + 1  # open files


class OneConnection:
    """A server with one connection, whose requests are answered when the test says so."""

    def __init__(self) -> None:
        settings = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32)
        self.connections = OpenConnections(settings, random.Random(1))
        app = web.Application()
        app.router.add_get("/slow", self._answer)
        self.runner = Runner(app, Pace(), self.connections, lambda *_: False)
        self.may_answer = asyncio.Semaphore(0)
        self.answered = 0

    async def open(self) -> None:
        await self.runner.setup()
        self.client, server = socket.socketpair()
        server.setblocking(False)
        self.protocol = self.runner.protocol(self.connections.arrive("127.0.0.1", ONE_CONNECTION))
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self.protocol, server)

    def is_idle(self) -> bool:
        """Return whether the connection would be closed to make room."""
        return id(self.protocol) in map(id, self.connections._idle)

    async def _answer(self, _: web.Request) -> web.Response:
        await self.may_answer.acquire()
        self.answered += 1
        return web.Response()


@pytest.fixture
async def one() -> AsyncIterator[OneConnection]:
    made = OneConnection()
    await made.open()
    yield made
    made.client.close()
    await made.runner.cleanup()


async def test_connection_whose_request_has_arrived_makes_no_room(one: OneConnection) -> None:
    """Its handler has not begun yet."""
    assert one.is_idle()
    one.protocol.data_received(REQUEST)
    with pytest.raises(Refused):
        one.connections.arrive("127.0.0.1", ONE_CONNECTION)
    one.may_answer.release()
    await until(one.is_idle)
    assert one.answered == 1


async def test_connection_is_not_idle_between_pipelined_requests(one: OneConnection) -> None:
    one.protocol.data_received(REQUEST * 2)
    one.may_answer.release()
    await until(lambda: one.answered == 1)
    for _ in range(10):
        await asyncio.sleep(0)
        assert not one.is_idle()
    one.may_answer.release()
    await until(one.is_idle)
