"""Keys from an issuer over HTTP, on the real wire: rotation, an unreachable issuer, and hostile answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from gateway.auth import jwks_schedule
from shared.ids import Prefix, new_id
from tests.support.infrastructure import Infrastructure
from tests.support.issuer import Issuer, issuer
from tests.support.live_client import LiveClient
from tests.support.queues import empty_queues
from tests.support.services import chat_service, free_port, gateway_alone
from tests.support.waiting import until_async


@pytest.fixture(scope="module")
async def amqp_url(infrastructure: Infrastructure) -> AsyncIterator[str]:
    """Yield the broker's address, with a running chat_service, without which no gateway is ready."""
    await empty_queues(infrastructure.amqp_url)
    async with chat_service(infrastructure.amqp_url, infrastructure.mongodb_uri, new_id(Prefix.COMMAND)):
        yield infrastructure.amqp_url


@pytest.fixture
async def identity(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Issuer]:
    monkeypatch.setattr(jwks_schedule, "COOLDOWN_S", 0.0)
    async with issuer() as made:
        yield made


async def auth(url: str, token: str) -> tuple[str, int | None]:
    """Return the type or code of the answer, and the close code if the socket is closed with it."""
    async with await LiveClient.open(url) as client:
        answer = await client.ask("auth", token=token)
        if answer["type"] == "error":
            return answer["data"]["code"], await client.close_code()
        return answer["type"], None


async def rest_status(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/no-such-call", headers=headers) as response:
        return response.status


async def test_rotation_accepts_new_key_and_refuses_old_one(amqp_url: str, identity: Issuer) -> None:
    async with gateway_alone(amqp_url, jwt_jwks_url=identity.url) as url:
        old = identity.token("alice")
        assert await auth(url, old) == ("auth:ok", None)
        identity.rotate("second")
        assert await auth(url, identity.token("alice")) == ("auth:ok", None)
        assert await auth(url, old) == ("UNAUTHORIZED", 4401)


async def test_unknown_key_ids_do_not_flood_issuer(
    amqp_url: str, identity: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_schedule, "COOLDOWN_S", 60.0)
    async with gateway_alone(amqp_url, jwt_jwks_url=identity.url) as url:
        assert await auth(url, identity.token("alice")) == ("auth:ok", None)
        asked = identity.asked
        identity.rotate("made up", publish=False)
        answers = await asyncio.gather(*(auth(url, identity.token("mallory")) for _ in range(20)))
        assert set(answers) == {("UNAUTHORIZED", 4401)}
        assert identity.asked == asked


async def test_concurrent_unknown_keys_share_one_request(amqp_url: str, identity: Issuer) -> None:
    async with gateway_alone(amqp_url, jwt_jwks_url=identity.url) as url:
        assert await auth(url, identity.token("alice")) == ("auth:ok", None)
        asked = identity.asked
        identity.rotate("second")
        token = identity.token("alice")
        answers = await asyncio.gather(*(auth(url, token) for _ in range(15)))
        assert set(answers) == {("auth:ok", None)}
        assert identity.asked == asked + 1


async def test_unreachable_issuer_keeps_known_keys_and_makes_unknown_retryable(amqp_url: str, identity: Issuer) -> None:
    async with gateway_alone(amqp_url, jwt_jwks_url=identity.url) as url:
        known = identity.token("alice")
        assert await auth(url, known) == ("auth:ok", None)
        identity.status = 500
        identity.rotate("second")
        new = identity.token("alice")
        assert await auth(url, new) == ("UNAVAILABLE", 1013)
        assert await rest_status(url, new) == 503
        assert await auth(url, known) == ("auth:ok", None)
        async with await LiveClient.open(url) as client:
            await client.ask("auth", token=known)
            renewal = await client.ask("auth", token=new)
            assert renewal["data"]["code"] == "UNAVAILABLE"
            assert renewal["data"]["retryable"]
            await client.barrier()  # the earlier token is still valid
        identity.status = 200
        assert await auth(url, new) == ("auth:ok", None)


@pytest.mark.parametrize("status", [301, 302, 404])
async def test_redirect_or_failure_yields_no_keys(amqp_url: str, identity: Issuer, status: int) -> None:
    async with gateway_alone(amqp_url, jwt_jwks_url=identity.url) as url:
        known = identity.token("alice")
        assert await auth(url, known) == ("auth:ok", None)
        identity.status = status
        identity.rotate("second")
        assert await auth(url, identity.token("alice")) == ("UNAVAILABLE", 1013)
        assert await auth(url, known) == ("auth:ok", None)


async def test_endless_body_is_rejected(amqp_url: str, identity: Issuer) -> None:
    async with gateway_alone(amqp_url, jwt_jwks_url=identity.url) as url:
        known = identity.token("alice")
        assert await auth(url, known) == ("auth:ok", None)
        identity.rotate("second")
        identity.body += b" " * 300_000
        assert await auth(url, identity.token("alice")) == ("UNAVAILABLE", 1013)


async def test_gateway_becomes_ready_once_keys_arrive(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks_schedule, "RETRY_FIRST_S", 0.1)
    late = Issuer(free_port())
    late.rotate("first")
    admin_port = free_port()
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as http:
        starting = asyncio.create_task(
            stack.enter_async_context(gateway_alone(amqp_url, jwt_jwks_url=late.url, admin_port=admin_port))
        )
        await until_async(lambda: reasons(http, admin_port), lambda found: "keys" in found)
        await stack.enter_async_context(late.serving())
        url = await starting
        assert await auth(url, late.token("alice")) == ("auth:ok", None)


async def reasons(http: aiohttp.ClientSession, port: int) -> set[str]:
    try:
        async with http.get(f"http://127.0.0.1:{port}/readyz") as response:
            return set((await response.json())["reasons"])
    except aiohttp.ClientError:
        return set()
