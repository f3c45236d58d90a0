"""HAProxy, configured as it is deployed, in front of real gateway processes."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from shared.ids import Prefix, new_id
from tests.support.balancer import START_TIMEOUT_S, STOP_TIMEOUT_S, BalancedGateway, Balancer, needs_haproxy
from tests.support.infrastructure import Infrastructure
from tests.support.live_client import LiveClient, RestClient
from tests.support.no_revocations import no_revocations
from tests.support.services import chat_service
from tests.support.tokens import SECRET
from tests.support.waiting import until

pytestmark = needs_haproxy

NOTICED_WITHIN_S = 30.0  # 2 to 4 s on a machine with nothing else to do
DRAIN_TIMEOUT_S = 6.0
PER_ADDRESS = 2
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
SWITCHING_PROTOCOLS, TOO_MANY_REQUESTS = 101, 429
TRUSTING = {"TRUSTED_PROXIES": "127.0.0.1/32", "MAX_CONNECTIONS_PER_IP": str(PER_ADDRESS)}


@dataclass
class Front:
    """The gateways behind one address."""

    balancer: Balancer
    gateways: list[BalancedGateway]
    strict: BalancedGateway

    async def start(self, *gateways: BalancedGateway) -> None:
        """Start more gateways, and wait until the balancer has found them all."""
        for gateway in gateways:
            gateway.start()
        for gateway in gateways:
            await asyncio.to_thread(gateway.wait_until, gateway.is_ready, START_TIMEOUT_S)
        running = [gateway for gateway in self.gateways if gateway.is_running()]
        self.balancer.announce(*running)
        await until(lambda: self.balancer.gateways_up() == len(running), NOTICED_WITHIN_S)

    def spread(self) -> list[int]:
        """Return the number of sockets of each gateway."""
        return [gateway.connections() if gateway.is_running() else 0 for gateway in self.gateways]


@pytest.fixture(scope="module")
async def whole(infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    directory: Path = tmp_path_factory.mktemp("balancer")
    amqp_url, database = infrastructure.amqp_url, new_id(Prefix.COMMAND)
    environment = {
        "AMQP_URL": amqp_url,
        "JWT_SECRET": SECRET,
        "DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
    }
    async with chat_service(amqp_url, infrastructure.mongodb_uri, database), no_revocations(amqp_url):
        with Balancer(directory) as balancer:
            gateways = [BalancedGateway(directory, balancer, number, environment) for number in (1, 2)]
            strict = BalancedGateway(directory, balancer, 3, environment | TRUSTING)
            try:
                yield Front(balancer, gateways, strict)
            finally:
                await asyncio.gather(
                    *(asyncio.to_thread(gateway.stop, STOP_TIMEOUT_S) for gateway in (*gateways, strict))
                )


@pytest.fixture
async def front(whole: Front) -> Front:
    """Wait until both gateways are up and have no socket."""
    await whole.start(*(gateway for gateway in whole.gateways if not gateway.is_running()))
    await until(lambda: whole.spread() == [0, 0])
    return whole


async def open_many(clients: AsyncExitStack, front: Front, count: int) -> list[LiveClient]:
    """Open sockets through the balancer in sequence; each must be accepted at the first try."""
    return [
        await clients.enter_async_context(await LiveClient.as_user(front.balancer.url, f"user-{number}"))
        for number in range(count)
    ]


async def test_sockets_are_spread_by_least_connections(front: Front) -> None:
    async with AsyncExitStack() as clients:
        first = await open_many(clients, front, 8)
        assert front.spread() == [4, 4]
        for client in first[:5]:
            await client.close()
        await until(lambda: sum(front.spread()) == 3)
        await open_many(clients, front, 5)
        assert front.spread() == [4, 4]


async def test_session_resumes_on_any_gateway(front: Front) -> None:
    caller = RestClient(front.balancer.url, "ann")
    room = await caller.create_room()
    met: set[str] = set()
    seen = 0
    async with AsyncExitStack() as clients:
        for number in range(1, 5):
            before = front.spread()
            ann = await clients.enter_async_context(await LiveClient.as_user(front.balancer.url, "ann"))
            met |= {str(index) for index, count in enumerate(front.spread()) if count > before[index]}
            await caller.data("POST", f"/v1/chatrooms/{room}/messages", json={"message": str(number)})
            await ann.ask("subscribe", channel="chatroom", chatroomId=room, since=seen)
            message = await ann.data("chat:message")
            assert (message["seq"], message["message"]) == (seen + 1, str(number))
            seen = message["seq"]
    assert met == {"0", "1"}


async def test_draining_gateway_gets_no_new_sockets_and_refuses_none(front: Front) -> None:
    leaving, staying = front.gateways
    async with AsyncExitStack() as clients:
        await open_many(clients, front, 60)
        held = leaving.connections()
        leaving.signal(signal.SIGTERM)
        await until(lambda: front.balancer.gateways_up() == 1, NOTICED_WITHIN_S)
        assert leaving.is_running(), "it had no time left to be observed in"
        assert not leaving.is_ready()
        before = staying.connections()
        await open_many(clients, front, 10)
        assert staying.connections() == before + 10
        assert leaving.connections() <= held
        await until(lambda: not leaving.is_running(), STOP_TIMEOUT_S)


async def test_sockets_opened_as_a_drain_begins_are_accepted(front: Front) -> None:
    leaving, _ = front.gateways
    async with AsyncExitStack() as clients:
        await open_many(clients, front, 4)
        leaving.signal(signal.SIGTERM)
        await open_many(clients, front, 20)
        await until(lambda: not leaving.is_running(), STOP_TIMEOUT_S)


async def test_dead_gateway_is_detected(front: Front) -> None:
    dead, alive = front.gateways
    async with AsyncExitStack() as clients:
        sockets = await open_many(clients, front, 4)
        dead.kill()
        await until(lambda: sum(client.is_closed for client in sockets) == 2)
        await open_many(clients, front, 4)
        assert alive.connections() == 6
        await until(lambda: front.balancer.gateways_up() == 1, NOTICED_WITHIN_S)


async def test_frozen_gateway_gets_no_new_sockets_after_detection(front: Front) -> None:
    frozen, alive = front.gateways
    frozen.signal(signal.SIGSTOP)
    try:
        await until(lambda: front.balancer.gateways_up() == 1, NOTICED_WITHIN_S)
        async with AsyncExitStack() as clients:
            await open_many(clients, front, 4)
            assert alive.connections() == 4
    finally:
        frozen.signal(signal.SIGCONT)
    await until(lambda: front.balancer.gateways_up() == 2, NOTICED_WITHIN_S)


async def test_client_cannot_claim_another_address(front: Front) -> None:
    strict = front.strict
    await front.start(strict)
    front.balancer.announce(strict)
    await until(lambda: front.balancer.gateways_up() == 1, NOTICED_WITHIN_S)
    ways = ((front.balancer.url, "127.0.9.1", "127.0.9.2"), (strict.url, "127.0.9.3", "127.0.9.4"))
    async with AsyncExitStack() as sockets:
        for url, here, elsewhere in ways:
            for _ in range(PER_ADDRESS):
                assert await knock(sockets, url, here) == SWITCHING_PROTOCOLS
            assert await knock(sockets, url, here) == TOO_MANY_REQUESTS
            assert await knock(sockets, url, here, forwarded="203.0.113.7") == TOO_MANY_REQUESTS
            assert await knock(sockets, url, elsewhere) == SWITCHING_PROTOCOLS
    await asyncio.to_thread(strict.stop, STOP_TIMEOUT_S)


async def knock(sockets: AsyncExitStack, url: str, address: str, forwarded: str | None = None) -> int:
    """Open a socket from this address, and return the status of the upgrade. It stays open as long as `sockets`."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    http = await sockets.enter_async_context(aiohttp.ClientSession(connector=connector))
    headers = {"X-Forwarded-For": forwarded} if forwarded is not None else {}
    try:
        await sockets.enter_async_context(http.ws_connect(f"{url}/v1/live", headers=headers))
    except aiohttp.WSServerHandshakeError as refused:
        return refused.status
    return SWITCHING_PROTOCOLS


@pytest.mark.parametrize("headers", [{}, UPGRADE], ids=["call", "upgrade"])
async def test_missing_gateways_are_answered_in_the_envelope(tmp_path: Path, headers: dict[str, str]) -> None:
    async with aiohttp.ClientSession() as http:
        with Balancer(tmp_path) as balancer:
            async with http.get(f"{balancer.url}/v1/live", headers=headers) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert response.content_type == "application/json"
                assert await response.json() == {
                    "success": False,
                    "status": 503,
                    "error": {"code": "UNAVAILABLE", "message": "no gateway is ready", "retryAfterMs": 1000},
                }
