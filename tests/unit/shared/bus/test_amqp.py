"""The errors of aiormq in callers that wait while a channel closes."""

import asyncio

import pytest

from shared.bus.amqp import translate_channel_closed


async def wait_for(future: "asyncio.Future[None]") -> None:
    with translate_channel_closed():
        await future


async def test_unrequested_cancellation_is_lost_connection() -> None:
    confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(wait_for(confirm))
    await asyncio.sleep(0)
    confirm.cancel()
    with pytest.raises(ConnectionError):
        await waiting


async def test_cancelled_caller_stays_cancelled() -> None:
    waiting = asyncio.create_task(wait_for(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_timeout_stays_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wait_for(asyncio.get_running_loop().create_future())


@pytest.mark.parametrize(("raised", "seen"), [(Exception(), ConnectionError), (ValueError(), ValueError)])
def test_only_bare_exception_is_lost_connection(raised: Exception, seen: type[Exception]) -> None:
    with pytest.raises(seen), translate_channel_closed():
        raise raised
