"""A small load on the balancer: two chatting clients, REST calls and upgrades, and what they saw."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

from tests.operations.trader import Trader
from tests.support.tokens import mint

SENDS_PER_S = 5.0
PROBE_INTERVAL_S = 0.25  # REST reads are limited to 600 a minute
PROBE_TIMEOUT_S = 8.0
SWITCHING_PROTOCOLS = 101
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass
class Load:
    """The clients and their observations since the start, or since `begin_window`."""

    url: str
    room: str
    secret: str
    traders: list[Trader] = field(default_factory=list)
    foreign_answers: list[str] = field(default_factory=list)
    answers: int = 0
    sent: int = 0
    _last_ack_s: float = 0.0
    _longest_s: float = 0.0

    def begin_window(self) -> None:
        """Forget the longest pause so far."""
        self._longest_s, self._last_ack_s = 0.0, time.monotonic()

    def longest_pause_s(self) -> float:
        """Return the longest time without an ack in the window, up to now."""
        return max(self._longest_s, time.monotonic() - self._last_ack_s)

    def acks_are_current(self) -> bool:
        """Return whether an ack has come within the last second."""
        return time.monotonic() - self._last_ack_s < 1.0

    def _note_ack(self) -> None:
        now_s = time.monotonic()
        self._longest_s = max(self._longest_s, now_s - self._last_ack_s)
        self._last_ack_s = now_s

    async def send(self, key: str, trader: Trader) -> None:
        """Send one message until its ack."""
        self.sent += 1
        await trader.send(key)
        self._note_ack()

    async def probe(self, http: aiohttp.ClientSession, path: str, headers: dict[str, str]) -> None:
        """Ask once, and note an answer that is not the product's envelope. No answer at all is no answer."""
        with suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
            async with http.get(f"{self.url}{path}", headers=headers) as response:
                if response.status == SWITCHING_PROTOCOLS:
                    self.answers += 1
                    return
                body = await response.read()
                self.answers += 1
                if not is_envelope(response.status, body, response.headers.get("Retry-After")):
                    self.foreign_answers.append(f"{path} {response.status} {body[:120]!r}")


def is_envelope(status: int, body: bytes, retry_after: str | None) -> bool:
    """Return whether an answer is the product's envelope; errors to be retried must say when."""
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    if not isinstance(answer, dict) or answer.get("success") is not (status < 400):
        return False
    return status not in (502, 503, 504) or retry_after is not None


@asynccontextmanager
async def running_load(url: str, room: str, secret: str) -> AsyncIterator[Load]:
    """Yield a load; its messages are all acknowledged when the block ends without an error."""
    load = Load(url, room, secret)
    done = asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=PROBE_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as tasks:
        load.traders = [Trader(name, url, [room], secret=secret) for name in ("ann", "bob")]
        reading = [tasks.create_task(trader.run(http)) for trader in load.traders]
        probing = [tasks.create_task(_probe_until_cancelled(load)), tasks.create_task(_talk(load, done))]
        load.begin_window()
        yield load
        done.set()
        await probing[1]
        for task in (*reading, probing[0]):
            task.cancel()


async def _talk(load: Load, done: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as sending:
        for number in itertools.count():
            if done.is_set():
                return
            sending.create_task(load.send(f"m-{number}", load.traders[number % len(load.traders)]))
            await asyncio.sleep(1 / SENDS_PER_S)


async def _probe_until_cancelled(load: Load) -> None:
    bearer = {"Authorization": f"Bearer {mint('ann', secret=load.secret)}"}
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as probes:
        while True:
            probes.create_task(load.probe(http, f"/v1/chatrooms/{load.room}", bearer))
            probes.create_task(load.probe(http, "/v1/live", UPGRADE))
            await asyncio.sleep(PROBE_INTERVAL_S)
