"""The parts of the scenario `quiet`: its rooms and users, what it measures, and its tables."""

import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.bench.fleet import Fleet
from tests.bench.jobs.chat import ChatLoad, User
from tests.bench.processes import CpuMeter, Wakeups, client_ports, wakeups
from tests.bench.tally import Tally
from tests.bench.wirecount import CountingProxy, by_service

LOOP_TURNS = 3_000_000
LOOP_REPEATS = 5

Counted = Counter[tuple[str, str, str]]


def python_loop_ms() -> float:
    """Return the time of a fixed loop, the shortest of five: the speed of this machine at this moment."""
    taken: list[float] = []
    for _ in range(LOOP_REPEATS):
        begun_s = time.perf_counter()
        total = 0
        for number in range(LOOP_TURNS):
            total += number & 7
        taken.append((time.perf_counter() - begun_s) * 1000)
    return round(min(taken), 1)


class QuietMeter(CpuMeter):
    """CPU, wake-ups and, behind counting proxies, frames and commands between `begin` and `end`."""

    def __init__(self, pids: Mapping[str, int], proxies: Sequence[CountingProxy] = ()) -> None:
        super().__init__(pids)
        self._server_pids = dict(pids)
        self._proxies = proxies
        self._begun_wakeups: dict[str, Wakeups] = {}
        self._begun_counts: list[Counted] = []
        self.wakeups: dict[str, Wakeups] = {}
        self.counts: list[Counted] = [Counter() for _ in proxies]

    def begin(self) -> None:
        """Take the first reading."""
        super().begin()
        self._begun_wakeups = {name: wakeups(pid) for name, pid in self._server_pids.items()}
        self._begun_counts = self._count()

    def end(self) -> None:
        """Take the second reading and keep the differences."""
        super().end()
        for name, pid in self._server_pids.items():
            before, now = self._begun_wakeups[name], wakeups(pid)
            self.wakeups[name] = Wakeups(now.main - before.main, now.others - before.others)
        for number, now_counted in enumerate(self._count()):
            now_counted.subtract(self._begun_counts[number])
            self.counts[number] = +now_counted

    def _count(self) -> list[Counted]:
        owners = {port: kind_of(name) for name, pid in self._server_pids.items() for port in client_ports(pid)}
        return [by_service(proxy.counts(), owners) for proxy in self._proxies]


def kind_of(process: str) -> str:
    """Return the service of a process: `gateway_2` is a gateway."""
    return process.rstrip("0123456789").rstrip("_")


@dataclass
class QuietRun:
    """One measured rate on one side."""

    rate: float
    seconds: float
    tally: Tally
    cpu_s: dict[str, float] = field(default_factory=dict)
    wakeups: dict[str, Wakeups] = field(default_factory=dict)
    counts: list[Counted] = field(default_factory=list)

    @property
    def messages(self) -> float:
        """Return the number of messages in the measured time."""
        return self.rate * self.seconds

    def cpu_ms(self, *kinds: str) -> float:
        """Return the CPU milliseconds per message of services, or of all servers."""
        used_s = sum(used for name, used in self.cpu_s.items() if not kinds or kind_of(name) in kinds)
        return used_s * 1000 / self.messages if self.messages else used_s * 1000 / self.seconds

    def woken(self, kind: str) -> Wakeups:
        """Return the wake-ups of a service."""
        mine = [woken for name, woken in self.wakeups.items() if kind_of(name) == kind]
        return Wakeups(sum(woken.main for woken in mine), sum(woken.others for woken in mine))

    def has(self, *kinds: str) -> bool:
        """Return True if one of the services took part."""
        return any(kind_of(name) in kinds for name in self.cpu_s)

    def holds(self, limit_ms: float) -> bool:
        """Return True if every message was acked and delivered once and both p99 are within the limit."""
        tally = self.tally
        whole = tally.acked == tally.sent and not tally.refused and not tally.lost and not tally.repeated
        worst = [latencies.at(99) for latencies in (tally.answers, tally.latencies)]
        return whole and all(found is not None and found <= limit_ms for found in worst)


@dataclass(frozen=True)
class QuietLoad:
    """The load: each room has a sender, who also reads it, and one further listener, whose deliveries are timed."""

    host: str
    port: int
    rooms: Sequence[str]
    options: Namespace
    on_peer: bool = False

    def run(self, rate: float, seconds: float, meter: QuietMeter) -> QuietRun:
        """Run one rate. Raises LoadFailed."""
        jobs = [self._job(number, rate) for number in range(self.options.listeners)]
        with Fleet(jobs, self.options.timeout + seconds) as fleet:
            fleet.wait_ready()
            window = fleet.run(seconds, self.options.warmup, meter)
            tally = fleet.collect([job.name for job in jobs])
        servers = {name: used for name, used in meter.used_s.items() if not name.startswith("load")}
        return QuietRun(rate, window.measured_s, tally, servers, meter.wakeups, meter.counts)

    def _job(self, number: int, rate: float) -> ChatLoad:
        users: list[User] = []
        for index in range(number, len(self.rooms), self.options.listeners):
            room = self.rooms[index]
            users.append(User(f"sender-{index}", (room,), (room,), timed=False, on_peer=self.on_peer))
            users.append(User(f"listener-{index}", (), (room,), on_peer=self.on_peer))
        share = rate / self.options.listeners
        name, address = f"chatters {number}", 2 + 10 * number
        return ChatLoad(name, self.host, self.port, users, share, self.options.size, first_address=address)


def idle_run(seconds: float, meter: QuietMeter) -> QuietRun:
    """Measure the servers without load."""
    meter.begin()
    begun_s = time.monotonic()
    time.sleep(seconds)
    taken_s = time.monotonic() - begun_s
    meter.end()
    return QuietRun(0.0, taken_s, Tally(), meter.used_s, meter.wakeups, meter.counts)
