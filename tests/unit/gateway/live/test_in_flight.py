"""The bound of a socket's requests in flight."""

import asyncio

from gateway.live.in_flight import IN_FLIGHT_MAX, InFlight


async def test_request_beyond_the_bound_waits() -> None:
    requests = InFlight()
    for _ in range(IN_FLIGHT_MAX):
        await requests.begin()
    beyond = asyncio.ensure_future(requests.begin())
    await asyncio.sleep(0)
    assert not beyond.done()
    requests.end()
    await beyond
    assert requests.count == IN_FLIGHT_MAX


async def test_shut_admits_nothing_and_reports_idle() -> None:
    requests = InFlight()
    await requests.begin()
    requests.shut()
    waiting, ended = asyncio.ensure_future(requests.begin()), asyncio.ensure_future(requests.wait_idle())
    await asyncio.sleep(0)
    requests.end()
    await ended
    assert not waiting.done()
    requests.reopen()
    await waiting
    assert requests.count == 1
