"""The services inside the test process, on the real broker and database, with their own ports."""

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp

from chat_service.__main__ import serve as serve_chat
from chat_service.settings import ChatSettings
from gateway.__main__ import serve as serve_gateway
from gateway.settings import GatewaySettings
from market_feed.__main__ import serve as serve_market
from market_feed.settings import MarketSettings
from notifier.__main__ import serve as serve_notifier
from notifier.settings import NotifierSettings
from shared.ids import Prefix, new_id
from tests.support.limits import HIGH_CHAT_LIMITS, HIGH_GATEWAY_LIMITS
from tests.support.no_revocations import no_revocations
from tests.support.tokens import SECRET

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 180.0  # market_feed stores the replayed ticks


PORTS_FIRST = 16_000  # below the kernel's ephemeral range
PORTS_EACH = 2_000


def _own_ports() -> Iterator[int]:
    """Return this process's range of ports.

    Gateways share ports (SO_REUSEPORT): two test processes on one port would receive each other's clients.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    first = PORTS_FIRST + worker * PORTS_EACH
    begun = os.getpid() % PORTS_EACH
    return itertools.cycle((*range(first + begun, first + PORTS_EACH), *range(first, first + begun)))


_ports = _own_ports()


def free_port() -> int:
    """Return a port without a listener that no other process of this test run receives."""
    for port in itertools.islice(_ports, PORTS_EACH):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"none of {PORTS_EACH} ports is free")


@asynccontextmanager
async def running(serve: Callable[[Any, str, asyncio.Event], Awaitable[None]], settings: Any) -> AsyncIterator[None]:
    """Yield a ready service in this event loop; it stops as on SIGTERM."""
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve(settings, new_id(Prefix.NODE), stop))
    try:
        await wait_ready(settings.admin_port, serving)
        yield
    finally:
        stop.set()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await serving


async def wait_ready(admin_port: int, serving: "asyncio.Future[None] | None" = None) -> None:
    """Return once `/readyz` reports ready. Raises the service's failure, or TimeoutError."""
    url = f"http://127.0.0.1:{admin_port}/readyz"
    async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as http:
        while True:
            if serving is not None and serving.done():
                serving.result()
                raise AssertionError("the service ended")
            with suppress(aiohttp.ClientError):
                async with http.get(url) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def chat_service(amqp_url: str, mongodb_uri: str, database: str, **more: Any) -> AsyncIterator[None]:
    """Run one chat_service replica."""
    settings = ChatSettings(
        amqp_url=amqp_url,
        mongodb_uri=mongodb_uri,
        mongodb_database=database,
        admin_port=free_port(),
        admin_host="127.0.0.1",
        **{**HIGH_CHAT_LIMITS, **more},
    )
    async with running(serve_chat, settings):
        yield


@asynccontextmanager
async def market_feed(amqp_url: str, mongodb_uri: str, database: str, **more: Any) -> AsyncIterator[None]:
    """Run one market_feed; without further settings it simulates all built-in symbols."""
    settings = MarketSettings(
        amqp_url=amqp_url,
        mongodb_uri=mongodb_uri,
        mongodb_database=database,
        admin_port=free_port(),
        admin_host="127.0.0.1",
        **more,
    )
    async with running(serve_market, settings):
        yield


@asynccontextmanager
async def notifier(amqp_url: str, mongodb_uri: str, database: str, **more: Any) -> AsyncIterator[None]:
    """Run one notifier."""
    settings = NotifierSettings(
        amqp_url=amqp_url,
        mongodb_uri=mongodb_uri,
        mongodb_database=database,
        admin_port=free_port(),
        admin_host="127.0.0.1",
        **more,
    )
    async with running(serve_notifier, settings):
        yield


@asynccontextmanager
async def gateway_alone(amqp_url: str, **more: Any) -> AsyncIterator[str]:
    """Run one gateway without notifier, and yield its URL. Nobody is banned."""
    async with no_revocations(amqp_url), gateway(amqp_url, **more) as url:
        yield url


@asynccontextmanager
async def gateway(amqp_url: str, **more: Any) -> AsyncIterator[str]:
    """Run one gateway beside a notifier, and yield its URL."""
    settings = GatewaySettings(
        amqp_url=amqp_url,
        jwt_secret=SECRET,
        gateway_host="127.0.0.1",
        gateway_port=free_port(),
        admin_host="127.0.0.1",
        **{"admin_port": free_port(), **HIGH_GATEWAY_LIMITS, **more},
    )
    async with running(serve_gateway, settings):
        yield f"http://127.0.0.1:{settings.gateway_port}"
