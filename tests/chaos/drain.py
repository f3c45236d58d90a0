"""SIGTERM to a gateway with many sockets under load: `make chaos-drain ARGS='--sockets 5000'`.

Every client must receive `server:drain` with an individual delay and then 1012, reconnect to the other gateway after
that delay, and miss and repeat nothing. The gateway must exit with 0 in time. Exits with 1 otherwise.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson

from deploy.local.command import CommandLine
from deploy.local.settings import PROJECT
from tests.chaos.report import percentile
from tests.chaos.system import SETTINGS
from tests.support.limits import HIGH_LIMITS
from tests.support.live_client import RestClient
from tests.support.local_system import LocalSystem
from tests.support.server_process import ServerProcess
from tests.support.services import free_port, wait_ready
from tests.support.tokens import mint
from tests.support.waiting import until

ROOMS = 20
RATE = 20.0
OPEN_AT_ONCE = 50
BEFORE_S = 2.0
OPEN_TIMEOUT_S = 120.0
DRAIN_TIMEOUT_S = 25.0
SETTLE_TIMEOUT_S = 120.0
RESTARTING = 1012


@dataclass
class Sitter:
    """A client that listens to one room and records what happens to it."""

    number: int
    room: str
    url: str
    then: str  # the address to reconnect to after a drain
    seqs: list[int] = field(default_factory=list)
    began: int | None = None
    drain_ms: int | None = None
    close_code: int | None = None
    closed_s: float = 0.0
    early: list[int | str | None] = field(default_factory=list)  # close codes before the drain
    listens: bool = False

    async def run(self, http: aiohttp.ClientSession, slots: asyncio.Semaphore) -> None:
        """Listen until cancelled; after a drain, at the other address."""
        while True:
            url = self.url if self.drain_ms is None else self.then
            try:
                async with slots:
                    ws = await http.ws_connect(f"{url}/v1/live", timeout=aiohttp.ClientWSTimeout(ws_close=2.0))
                    await ws.send_str(orjson.dumps(self._auth()).decode())
                await self._read(ws)
            except (aiohttp.ClientError, OSError) as error:
                self.early.append(type(error).__name__)
                await asyncio.sleep(random.uniform(0.2, 1.0))
                continue
            if self.drain_ms is None:
                self.early.append(ws.close_code)
                await asyncio.sleep(random.uniform(0.2, 1.0))
            elif self.close_code is None:
                self.close_code, self.closed_s = ws.close_code, time.monotonic()
                await asyncio.sleep(self.drain_ms / 1000)

    def _auth(self) -> Mapping[str, object]:
        target = {"channel": "chatroom", "chatroomId": self.room}
        since = {} if self.began is None else {"since": self.seqs[-1] if self.seqs else self.began}
        return {"type": "auth", "token": mint(f"sitter{self.number}"), "subscriptions": [target | since]}

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for message in ws:
            frame = orjson.loads(message.data)
            match frame["type"]:
                case "chat:message":
                    self.seqs.append(frame["data"]["seq"])
                case "subscribed":
                    self.listens = True
                    if self.began is None:
                        self.began = frame["data"]["seq"]
                case "error":  # overloaded: start over
                    self.early.append(frame["data"]["code"])
                    await ws.close()
                case "server:drain":
                    self.drain_ms = frame["data"]["reconnectAfterMs"]
        self.listens = False

    def is_complete(self, head: int) -> bool:
        """Return whether it received the whole room after its first seq, once and in order."""
        return self.began is not None and self.seqs == list(range(self.began + 1, head + 1))


@dataclass
class Drained:
    """The result of a drain."""

    exit_code: int
    took_s: float
    timeout_s: float
    sitters: list[Sitter]
    heads: dict[str, int]

    def figures(self) -> dict[str, object]:
        """Return the table."""
        delays = [sitter.drain_ms for sitter in self.sitters if sitter.drain_ms is not None]
        ends = [sitter.closed_s for sitter in self.sitters if sitter.closed_s]
        return {
            "sockets": len(self.sitters),
            "exit code": self.exit_code,
            "gone after s": round(self.took_s, 1),
            "told server:drain": len(delays),
            "closed with 1012": sum(sitter.close_code == RESTARTING for sitter in self.sitters),
            "attempts and connections that ended otherwise": dict(
                Counter(one for each in self.sitters for one in each.early)
            ),
            "closed over s": round(max(ends, default=0.0) - min(ends, default=0.0), 1),
            "reconnectAfterMs p10, p50, p90": [percentile(delays, share) for share in (0.1, 0.5, 0.9)],
            "different times": len(set(delays)),
            "messages": sum(self.heads.values()),
            "deliveries": sum(len(sitter.seqs) for sitter in self.sitters),
            "clients that missed or repeated something": len(self.incomplete()),
        }

    def incomplete(self) -> list[Sitter]:
        """Return the clients that did not receive everything once and in order."""
        return [sitter for sitter in self.sitters if not sitter.is_complete(self.heads[sitter.room])]

    def problems(self) -> list[str]:
        """Return every violated expectation."""
        told, count = self.figures(), len(self.sitters)
        wrong = {
            "it did not exit with 0": self.exit_code != 0,
            "it took too long": self.took_s > self.timeout_s,
            "not everybody was told": told["told server:drain"] != count,
            "not everybody was closed with 1012": told["closed with 1012"] != count,
            "they were closed all at once": float(str(told["closed over s"])) < self.timeout_s / 4,
            "the times are not spread": len({sitter.drain_ms for sitter in self.sitters}) < count // 4,
            "messages were lost or repeated": bool(self.incomplete()),
        }
        return [what for what, is_so in wrong.items() if is_so]


async def drain(system: LocalSystem, directory: Path, count: int, timeout_s: float = DRAIN_TIMEOUT_S) -> Drained:
    """Give an additional gateway `count` sockets, then send it SIGTERM; it has `timeout_s` to exit."""
    staying = system.entries()["GATEWAY_URL"]
    leaving, url, admin_port = _gateway(system, directory, timeout_s)
    leaving.start()
    try:
        await wait_ready(admin_port)
        rooms = [await RestClient(staying, "operator").create_room(f"Drain {number}") for number in range(ROOMS)]
        sitters = [Sitter(number, rooms[number % ROOMS], url, staying) for number in range(count)]
        slots = asyncio.Semaphore(OPEN_AT_ONCE)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            running = [asyncio.create_task(sitter.run(http, slots)) for sitter in sitters]
            try:
                await until(lambda: all(sitter.listens for sitter in sitters), OPEN_TIMEOUT_S)
                return await _drain_under_load(leaving, staying, rooms, sitters, timeout_s)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
    finally:
        leaving.kill()


async def _drain_under_load(
    leaving: ServerProcess, staying: str, rooms: list[str], sitters: list[Sitter], timeout_s: float
) -> Drained:
    heads: dict[str, int] = dict.fromkeys(rooms, 0)
    talking = asyncio.create_task(_talk(RestClient(staying, "talker"), heads))
    await asyncio.sleep(BEFORE_S)
    began_s = time.monotonic()
    leaving.signal(signal.SIGTERM)
    exit_code = await asyncio.to_thread(leaving.wait, 2 * timeout_s)
    took_s = time.monotonic() - began_s
    await until(lambda: all(sitter.listens for sitter in sitters), SETTLE_TIMEOUT_S)
    talking.cancel()
    await asyncio.gather(talking, return_exceptions=True)
    outcome = Drained(exit_code, took_s, timeout_s, sitters, heads)
    for room in rooms:  # includes a message in flight when the senders stopped
        heads[room] = (await RestClient(staying, "talker").data("GET", f"/v1/chatrooms/{room}/messages?limit=1"))[0][
            "seq"
        ]
    try:
        await until(lambda: not outcome.incomplete(), SETTLE_TIMEOUT_S)
    except TimeoutError:
        print(f"{len(outcome.incomplete())} clients are still not complete")
    return outcome


async def _talk(rest: RestClient, heads: dict[str, int]) -> None:
    rooms, number = list(heads), 0
    while True:
        room, key = rooms[number % len(rooms)], f"m{number}"
        body = {"message": key, "clientMessageId": key}
        status, said = await rest.call("POST", f"/v1/chatrooms/{room}/messages", json=body)
        if status != 503:  # otherwise retry
            heads[room] = said["data"]["seq"]
            number += 1
        await asyncio.sleep(1 / RATE)


def _gateway(system: LocalSystem, directory: Path, timeout_s: float) -> tuple[ServerProcess, str, int]:
    """Start a gateway of this system on its own port; return process, address and admin port."""
    entries, port, admin_port = system.entries(), free_port(), free_port()
    environment = {
        **HIGH_LIMITS,
        **SETTINGS,
        "PATH": "/usr/bin:/bin",
        "AMQP_URL": entries["AMQP_URL"],
        "GATEWAY_PORT": str(port),
        "ADMIN_HOST": "127.0.0.1",
        "ADMIN_PORT": str(admin_port),
        "DRAIN_TIMEOUT_S": str(timeout_s),
    }
    command = CommandLine((sys.executable, "-m", "gateway"), environment, PROJECT)
    return ServerProcess(command, directory / "leaving.out"), f"http://127.0.0.1:{port}", admin_port


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sockets", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="realtime-drain-") as name:
        directory = Path(name)
        with LocalSystem(directory / "system", {**SETTINGS, "GATEWAYS": "1"}) as system:
            drained = asyncio.run(drain(system, directory, arguments.sockets))
    for what, value in drained.figures().items():
        print(f"  {what:42} {value}")
    print("\n".join(drained.problems()) or "nothing is wrong")
    sys.exit(1 if drained.problems() else 0)


if __name__ == "__main__":
    main()
