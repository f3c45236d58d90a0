"""One system under attack, and a bystander that must not be affected."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import NamedTuple

import pytest

from shared.ids import Prefix, new_id
from tests.support.infrastructure import Infrastructure
from tests.support.live_client import LiveClient
from tests.support.queues import empty_queues
from tests.support.services import chat_service, gateway_alone

ANSWERED_WITHIN_S = 2.0  # on a shared machine
PING_INTERVAL_S = 0.05


class Victim(NamedTuple):
    url: str
    amqp_url: str


Unaffected = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture(scope="module")
async def system(infrastructure: Infrastructure) -> AsyncIterator[Victim]:
    """chat_service and one gateway."""
    amqp_url = infrastructure.amqp_url
    await empty_queues(amqp_url)
    async with (
        chat_service(amqp_url, infrastructure.mongodb_uri, new_id(Prefix.COMMAND)),
        gateway_alone(amqp_url) as url,
    ):
        yield Victim(url, amqp_url)


@pytest.fixture
def unaffected(system: Victim) -> Unaffected:
    """Return a context in which another socket sends all the time; it fails if an answer takes too long."""

    @asynccontextmanager
    async def watch() -> AsyncIterator[None]:
        slowest_s = 0.0
        async with await LiveClient.as_user(system.url, new_id(Prefix.COMMAND)) as bystander:

            async def ask_on() -> None:
                nonlocal slowest_s
                while True:
                    asked_s = time.monotonic()
                    await bystander.barrier()
                    slowest_s = max(slowest_s, time.monotonic() - asked_s)
                    await asyncio.sleep(PING_INTERVAL_S)

            asking = asyncio.create_task(ask_on())
            try:
                yield
                await bystander.barrier()
            finally:
                asking.cancel()
                with suppress(asyncio.CancelledError):
                    await asking
        assert slowest_s < ANSWERED_WITHIN_S

    return watch
