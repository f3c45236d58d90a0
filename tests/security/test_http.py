"""Attacks before the upgrade: connections that send nothing, too slowly, or too much."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from gateway.http import server as gateway_server
from gateway.rest import envelope
from tests.security.conftest import Unaffected, Victim
from tests.security.raw_socket import RawSocket
from tests.support.services import gateway_alone
from tests.support.tokens import mint


def refused_in_the_envelope(answer: bytes, *statuses: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    failure = json.loads(body)
    assert failure["status"] in statuses
    assert int(head.split()[1]) == failure["status"]
    assert failure["success"] is False


async def test_slow_loris_upgrade_is_dropped(
    system: Victim, unaffected: Unaffected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_server, "HEAD_TIMEOUT_S", 0.5)
    async with unaffected(), gateway_alone(system.amqp_url) as url, await RawSocket.connect(url) as loris:
        loris.send(b"GET /v1/live HTTP/1.1\r\nHost: x\r\n")

        async def trickle() -> None:
            while True:
                await loris.send_all(b"X-Slow: 1\r\n")
                await asyncio.sleep(0.05)  # slowness is the attack

        trickling = asyncio.create_task(trickle())
        assert await loris.rest() == b""
        trickling.cancel()


async def test_half_open_sockets_are_dropped_and_block_no_one(
    system: Victim, unaffected: Unaffected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_server, "HEAD_TIMEOUT_S", 2.0)
    async with gateway_alone(system.amqp_url) as url, unaffected(), AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await RawSocket.connect(url)) for _ in range(300)]
        async with await RawSocket.as_user(url, "alice"):
            pass
        assert set(await asyncio.gather(*(one.rest() for one in silent))) == {b""}


async def test_too_many_headers_are_refused(system: Victim, unaffected: Unaffected) -> None:
    async with unaffected(), await RawSocket.connect(system.url) as flood:
        headers = b"".join(b"X-%d: 1\r\n" % number for number in range(500))
        await flood.send_all(b"GET /v1/live HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
        refused_in_the_envelope(await flood.rest(), 400, 431)


@pytest.mark.parametrize(
    ("beginning", "endless", "statuses"),
    [
        (b"GET /v1/live HTTP/1.1\r\nHost: x\r\n", b"X: 1\r\n", (400, 431)),
        (b"GET /v1/live HTTP/1.1\r\nX: ", b"x" * 100, (400, 431)),
        (b"GET /", b"x" * 100, (400, 414)),
        (b"", b"\x00\xff" * 50, (400, 414)),
    ],
    ids=["headers", "one header", "path", "noise"],
)
async def test_endless_upgrade_head_is_refused(
    system: Victim, unaffected: Unaffected, beginning: bytes, endless: bytes, statuses: tuple[int, ...]
) -> None:
    async with unaffected(), await RawSocket.connect(system.url) as flood:
        await flood.send_all(beginning)
        for _ in range(400):
            await flood.send_all(endless * 20)
            if flood.writer.is_closing() or flood.reader.at_eof():
                break
        if answer := await flood.rest():  # a reset may have overtaken the answer
            refused_in_the_envelope(answer, *statuses)


async def test_missing_request_body_times_out(system: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "BODY_TIMEOUT_S", 0.3)
    async with await RawSocket.connect(system.url) as slow:
        head = (
            "POST /v1/chatrooms HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {mint('alice')}\r\nContent-Length: 1000\r\n\r\n{{"
        )
        slow.send(head.encode())
        async with asyncio.timeout(10):
            assert (await slow.reader.readline()).startswith(b"HTTP/1.1 408")


async def test_request_body_over_64_kb_is_not_read(system: Victim) -> None:
    async with await RawSocket.connect(system.url) as large:
        head = (
            "POST /v1/chatrooms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {mint('alice')}\r\nContent-Length: 10000000\r\n\r\n"
        )
        large.send(head.encode() + b" " * 70_000)
        async with asyncio.timeout(10):
            assert (await large.reader.readline()).startswith(b"HTTP/1.1 413")
