"""The shell of one socket on a real server, when a dependency fails."""

import asyncio
import gc
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from gateway.admission.admission import Admission
from gateway.admission.admission_queue import AdmissionQueue
from gateway.admission.open_connections import OpenConnections
from gateway.admission.pace import Pace
from gateway.http.server import Runner
from gateway.live.authentication import Authentication
from gateway.live.connections import Connections
from gateway.live.endpoint import LiveEndpoint
from gateway.live.frame_reader import FrameReader
from gateway.live.requests import LiveRequests
from gateway.live.socket import Socket
from gateway.live.websocket import WebSocket
from gateway.settings import GatewaySettings
from tests.support.waiting import until

SETTINGS = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32)


class BrokenAuthentication:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def authenticate(self, *_: Any) -> bool:
        raise RuntimeError("a bug")

    def forget(self, socket: Socket, _: float) -> None:
        self._connections.remove(socket)


class NoRequests:
    def forget(self, *_: Any) -> None:
        pass


@asynccontextmanager
async def served(sockets: Connections | None = None) -> AsyncIterator[str]:
    """Yield the URL of an endpoint whose authentication fails."""
    sockets = sockets or Connections(asyncio.get_running_loop().create_task)
    pace, chance = Pace(), random.Random(1)
    connections = OpenConnections(SETTINGS, chance)
    endpoint = LiveEndpoint(
        SETTINGS,
        Admission(SETTINGS, pace, connections, chance),
        AdmissionQueue(pace, time.monotonic),
        sockets,
        cast(Authentication, BrokenAuthentication(sockets)),
        cast(LiveRequests, NoRequests()),
    )
    app = web.Application()
    app.router.add_get("/v1/live", endpoint.handle)
    runner = Runner(app, pace, connections, endpoint.upgrade_at_once)
    await runner.setup()
    server = await asyncio.get_running_loop().create_server(
        lambda: runner.protocol(connections.arrive("127.0.0.1", 1000)), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/live"
    finally:
        server.close()
        await runner.cleanup()


@pytest.mark.parametrize("query", ["", "?through=aiohttp"])
async def test_internal_error_closes_with_1011_after_an_error_frame(query: str) -> None:
    async with served() as url, aiohttp.ClientSession() as http, http.ws_connect(url + query) as ws:
        await ws.send_str('{"type":"auth","token":"t"}')
        failure = json.loads((await ws.receive(timeout=5)).data)
        assert (failure["type"], failure["data"]["code"]) == ("error", "INTERNAL")
        await ws.receive(timeout=5)
        assert ws.close_code == 1011


def alive() -> int:
    """Return the number of existing connection objects."""
    kinds = (Socket, WebSocket, FrameReader, web.RequestHandler, web.Request)
    return sum(type(one) in kinds or issubclass(type(one), web.RequestHandler) for one in gc.get_objects())


@pytest.mark.parametrize("query", ["", "?through=aiohttp"])
async def test_closed_connections_leave_nothing_to_the_garbage_collector(query: str) -> None:
    sockets = Connections(asyncio.get_running_loop().create_task)
    async with served(sockets) as url, aiohttp.ClientSession() as http:
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(3):
                async with http.ws_connect(url + query) as ws:
                    await ws.ping()
            await until(lambda: len(sockets._due) == 0 and alive() <= before)
        finally:
            gc.enable()
