"""One run of the fuzzer: all actors at once for a time, then a comparison of the gateway's state before and after."""

import asyncio
import os
import random
import re
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.fuzz.actors import CallFuzzer, Control, SocketFuzzer, again_and_again
from tests.fuzz.material import MESSAGES_KEPT, FuzzMaterial, Material
from tests.fuzz.wire import WireFuzzer
from tests.support.live_client import RestClient
from tests.support.local_system import LocalSystem
from tests.support.tokens import SECRET, mint
from tests.support.waiting import until_async

USERS = [f"fuzz-{number}" for number in range(6)]
SOCKETS, WIRES, CALLERS = 3, 3, 2
WARM_UP_SHARE = 0.3
GROWTH_MAX_BYTES = 64 * 1024 * 1024
BASELINE_TIMEOUT_S = 60.0
SETTINGS = {
    "GATEWAYS": "1",
    "JWT_SECRET": SECRET,
    "LOG_FORMAT": "json",
    "RATE_LIMIT_MESSAGES_PER_MINUTE": "1000000",
    "MAX_CONNECTIONS_PER_USER": "1000",
}
_BAD_LINE = re.compile(r'"level": ?"(error|critical|exception)"|Traceback|\[(error|critical) *\]')


@dataclass
class FuzzReport:
    """The frames sent, and their effect on the gateway."""

    seed: int
    sent: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    slowest_s: float = 0.0
    memory_bytes: tuple[int, int] = (0, 0)
    sockets: tuple[int, int] = (0, 0)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        before, after = (size // 2**20 for size in self.memory_bytes)
        return (
            f"seed {self.seed}: {self.sent}; control client: {self.messages} messages in order, slowest"
            f" {self.slowest_s * 1000:.0f} ms; memory {before} -> {after} MB;"
            f" sockets {self.sockets[0]} -> {self.sockets[1]}" + "".join(f"\n  {problem}" for problem in self.problems)
        )


class GatewayProbe:
    """The process under test as the kernel sees it."""

    def __init__(self, system: LocalSystem) -> None:
        self._system = system
        self.url = system.entries()["GATEWAY_URL"]
        self.pid = self._pid_now()

    def _pid_now(self) -> int:
        entries = self._system.entries()
        return int(entries.get("GATEWAY_1_PID") or entries["GATEWAY_PID"])

    def is_the_same(self) -> bool:
        """Return whether it has never died; the supervisor would have replaced it."""
        return self._pid_now() == self.pid and Path(f"/proc/{self.pid}").exists()

    def memory_bytes(self) -> int:
        """Return the resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def sockets(self) -> int:
        """Return the number of open sockets, including listeners and those to the broker."""
        directory = Path(f"/proc/{self.pid}/fd")
        names: list[str] = []
        for entry in directory.iterdir():
            try:
                names.append(os.readlink(entry))
            except OSError:
                continue
        return sum(name.startswith("socket:") for name in names)

    def bad_lines(self) -> list[str]:
        """Return the log lines of any process above a warning."""
        log = (self._system.directory / "supervisor.out").read_text(errors="replace")
        return [line[:2_000] for line in log.splitlines() if _BAD_LINE.search(line)]


async def fuzz(system: LocalSystem, seconds: float, seed: int) -> FuzzReport:
    """Fuzz a running system for a time."""
    gateway = GatewayProbe(system)
    report = FuzzReport(seed)
    place, room = await furnish(gateway.url)
    before = gateway.sockets()
    stop = asyncio.Event()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        control = Control(gateway.url, http, room, (mint("control-1"), mint("control-2")))
        fuzzers = make_fuzzers(gateway.url, http, place, seed)
        running = [asyncio.create_task(control.run(stop))]
        running += [asyncio.create_task(again_and_again(one.once, stop)) for one in fuzzers]
        ended, _ = await asyncio.wait(running, timeout=seconds * WARM_UP_SHARE, return_when=asyncio.FIRST_EXCEPTION)
        warm_bytes = gateway.memory_bytes()
        if not ended:
            await asyncio.wait(running, timeout=seconds * (1 - WARM_UP_SHARE), return_when=asyncio.FIRST_EXCEPTION)
        stop.set()
        results = await asyncio.gather(*running, return_exceptions=True)
    report.problems += [
        problem for result in results if isinstance(result, BaseException) for problem in problems_of(result)
    ]
    for one in fuzzers:
        report.sent[type(one).__name__] = report.sent.get(type(one).__name__, 0) + one.sent
    report.messages, report.slowest_s = control.answered, control.slowest_s
    try:
        await until_async(lambda: asyncio.to_thread(gateway.sockets), lambda now: now <= before, BASELINE_TIMEOUT_S)
    except TimeoutError:
        report.problems.append("sockets stay open")
    report.sockets = before, gateway.sockets()
    report.memory_bytes = warm_bytes, gateway.memory_bytes()
    if report.memory_bytes[1] > warm_bytes + GROWTH_MAX_BYTES:
        report.problems.append("memory grows")
    if not gateway.is_the_same():
        report.problems.append("the gateway has died")
    report.problems += gateway.bad_lines()
    return report


def problems_of(error: BaseException) -> list[str]:
    """Return the text of an error, or of each error in a group."""
    if isinstance(error, BaseExceptionGroup):
        return [line for inner in error.exceptions for line in problems_of(inner)]
    return [f"{type(error).__name__}: {error}"]


def make_fuzzers(
    url: str, http: aiohttp.ClientSession, place: FuzzMaterial, seed: int
) -> list[SocketFuzzer | WireFuzzer | CallFuzzer]:
    """Return the fuzzers, each with a seed derived from the given one."""
    seeds = random.Random(seed)

    def material() -> Material:
        return Material(random.Random(seeds.randrange(2**32)), place)

    def token() -> str:
        return mint(seeds.choice(place.users), communities=["gold"])

    return [
        *(SocketFuzzer(material(), url, http, token()) for _ in range(SOCKETS)),
        *(WireFuzzer(material(), url, token()) for _ in range(WIRES)),
        *(CallFuzzer(material(), url, http, token()) for _ in range(CALLERS)),
    ]


async def furnish(url: str) -> tuple[FuzzMaterial, str]:
    """Create rooms of every type with some of the users, and the room of the control clients."""
    rooms: list[str] = []
    for number, user in enumerate(USERS):
        others = [other for other in USERS[number:] if other != user][:2]
        for kind in ("public", "private", "group"):
            rooms.append(await RestClient(url, user).create_room(f"{kind} {number}", kind, memberIds=others))
    room = await RestClient(url, "control-1").create_room("control", "private", memberIds=["control-2"])
    return FuzzMaterial(USERS, rooms, deque(maxlen=MESSAGES_KEPT)), room
