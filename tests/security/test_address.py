"""Connections per gateway and per address, and which proxies may name the address."""

import asyncio
import json
from contextlib import AsyncExitStack

import aiohttp
import pytest

from gateway.admission import open_connections
from gateway.http.refusing import REFUSING_MAX
from tests.security.conftest import Unaffected, Victim
from tests.security.raw_socket import RawSocket, text_frame
from tests.support.live_client import LiveClient
from tests.support.services import gateway_alone


async def status_of(url: str, forwarded: str | None = None) -> tuple[int, str | None]:
    """Return the status of one more upgrade, and its Retry-After."""
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    try:
        async with await LiveClient.open(url, headers=headers):
            return 101, None
    except aiohttp.WSServerHandshakeError as error:
        return error.status, None if error.headers is None else error.headers.get("Retry-After")


async def test_connections_per_address_are_bounded(system: Victim) -> None:
    async with (
        gateway_alone(system.amqp_url, max_connections_per_ip=2) as url,
        await LiveClient.open(url),
        await LiveClient.open(url) as second,
    ):
        status, retry_after = await status_of(url, forwarded="198.51.100.1")  # this test is not a trusted proxy
        assert status == 429
        assert 1 <= int(retry_after or 0) <= 10
        await second.close()
        while (await status_of(url))[0] == 429:
            pass


async def test_clients_behind_a_trusted_proxy_are_counted_separately(system: Victim) -> None:
    async with (
        gateway_alone(system.amqp_url, max_connections_per_ip=1, trusted_proxies=("127.0.0.0/8",)) as url,
        await LiveClient.open(url, headers={"X-Forwarded-For": "198.51.100.1"}),
    ):
        assert (await status_of(url, "1.1.1.1, 198.51.100.1"))[0] == 429
        assert (await status_of(url, "198.51.100.2"))[0] == 101


async def idle_connection(url: str) -> RawSocket:
    """Return a connection that has been answered once and is kept alive."""
    idle = await RawSocket.connect(url)
    idle.send(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await idle.reader.readline()).startswith(b"HTTP/1.1 404")
    return idle


async def test_idle_connections_without_a_token_keep_no_one_out(
    system: Victim, unaffected: Unaffected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest idle ones are closed; sockets stay."""
    monkeypatch.setattr(open_connections, "HTTP_CONNECTIONS_MAX", 10)
    async with unaffected(), gateway_alone(system.amqp_url, max_connections=20) as url, AsyncExitStack() as stack:
        first = await stack.enter_async_context(await RawSocket.as_user(url, "first"))
        idle = [await stack.enter_async_context(await idle_connection(url)) for _ in range(60)]
        silent = [await stack.enter_async_context(await RawSocket.connect(url)) for _ in range(60)]
        late = await stack.enter_async_context(await RawSocket.as_user(url, "late"))
        assert await idle[0].rest()
        assert not await silent[0].rest()
        for user in (first, late):
            user.send(text_frame("ping"))
            await user.next("pong")


async def test_connection_is_refused_in_the_envelope_while_all_others_are_in_use(
    system: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_connections, "HTTP_CONNECTIONS_MAX", 0)
    async with gateway_alone(system.amqp_url, max_connections=1) as url, await RawSocket.as_user(url, "first") as first:
        async with await RawSocket.connect(url) as second:
            second.send(b"GET /v1/chatrooms HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = (await second.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: " in head
        assert json.loads(body)["error"]["code"] == "UNAVAILABLE"
        first.send(text_frame("ping"))
        await first.next("pong")


async def test_connections_beyond_those_being_refused_are_closed(
    system: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_connections, "HTTP_CONNECTIONS_MAX", 0)
    async with (
        gateway_alone(system.amqp_url, max_connections=1) as url,
        await RawSocket.as_user(url, "first"),
        AsyncExitStack() as stack,
    ):
        silent = [await stack.enter_async_context(await RawSocket.connect(url)) for _ in range(REFUSING_MAX + 5)]
        assert await silent[-1].rest() == b""
