"""Connections per address, and which proxies may name the address."""

import aiohttp

from tests.security.conftest import Victim
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
        status, retry_after = await status_of(url, forwarded="198.51.100.1")  # this test is no trusted proxy
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
