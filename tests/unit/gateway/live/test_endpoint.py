"""The shell of one socket on a real server: what happens when something behind it fails."""

import asyncio
import json
import random
import time
from typing import Any, cast

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.admission.admission import Admission
from gateway.admission.admission_queue import AdmissionQueue
from gateway.admission.pace import Pace
from gateway.live.authentication import Authentication
from gateway.live.connections import Connections
from gateway.live.endpoint import LiveEndpoint
from gateway.live.requests import LiveRequests
from gateway.settings import GatewaySettings

SETTINGS = GatewaySettings(amqp_url="amqp://broker/", jwt_secret="s" * 32)


class BrokenAuthentication:
    async def authenticate(self, *_: Any) -> bool:
        raise RuntimeError("a bug")

    def forget(self, *_: Any) -> None:
        pass


class NoRequests:
    def forget(self, *_: Any) -> None:
        pass


async def test_internal_error_closes_with_1011_after_an_error_frame() -> None:
    pace = Pace()
    endpoint = LiveEndpoint(
        SETTINGS,
        Admission(SETTINGS, pace, random.Random(1)),
        AdmissionQueue(pace, time.monotonic),
        Connections(asyncio.get_running_loop().create_task),
        cast(Authentication, BrokenAuthentication()),
        cast(LiveRequests, NoRequests()),
    )
    app = web.Application()
    app.router.add_get("/v1/live", endpoint.handle)
    async with TestClient(TestServer(app)) as client, client.ws_connect("/v1/live") as ws:
        await ws.send_str('{"type":"auth","token":"t"}')
        failure = json.loads((await ws.receive(timeout=5)).data)
        assert (failure["type"], failure["data"]["code"]) == ("error", "INTERNAL")
        await ws.receive(timeout=5)
        assert ws.close_code == 1011
