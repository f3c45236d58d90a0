"""n idle sockets that only ping: the cost of one."""

from argparse import Namespace

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.jobs.chat import ChatLoad, User
from tests.bench.processes import CpuMeter, memory_bytes
from tests.bench.report import ScenarioOutcome
from tests.bench.system import Bench

ROOM_SIZE = 100
WARM_SOCKETS = 100  # excludes one-time costs of the first sockets, such as code and caches


def run(options: Namespace) -> ScenarioOutcome:
    """Subscribe each socket to `--channels` channels and ping every 30 s."""
    with system.running() as bench:
        return on(bench, options)


def on(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Run on a system that is already running."""
    rooms = bench.rooms(max(options.sockets // ROOM_SIZE, 1))
    gateway = bench.pids["gateway"]
    with Fleet([_crowd(bench, "warm", range(WARM_SOCKETS), rooms, options)], options.timeout) as fleet:
        fleet.wait_ready()
    before_bytes = memory_bytes(gateway)
    shares = [range(number, options.sockets, options.listeners) for number in range(options.listeners)]
    crowds = [_crowd(bench, f"sockets {number}", share, rooms, options) for number, share in enumerate(shares)]
    with Fleet(crowds, options.timeout) as fleet:
        fleet.wait_ready()
        meter = CpuMeter(bench.pids)
        window = fleet.run(options.seconds, options.warmup, meter)
        after_bytes = memory_bytes(gateway)
        tally = fleet.collect([])
    figures = {
        "gateway_bytes_a_socket": (after_bytes - before_bytes) // options.sockets,
        "gateway_rss_mb": after_bytes >> 20,
        "gateway_percent_of_a_core": round(meter.used_s["gateway"] / window.measured_s * 100, 2),
    }
    settings = {"sockets": options.sockets, "channels": options.channels}
    return ScenarioOutcome("idle", "realtime", settings, tally, window, meter.used_s, figures)


def _crowd(bench: Bench, name: str, numbers: range, rooms: list[str], options: Namespace) -> ChatLoad:
    users = [member(number, rooms, options.channels) for number in numbers]
    return ChatLoad(name, bench.host, bench.port, users, first_address=2 + 10 * (numbers.start + 1), concurrency=30)


def member(number: int, rooms: list[str], channels: int) -> User:
    """Return a user of one room of 100; the second channel is the inbox, the third a community."""
    more: list[dict[str, object]] = [
        {"channel": "notifications"},
        {"channel": "community", "communityId": f"community_{number % len(rooms)}"},
    ]
    room = rooms[number % len(rooms)]
    return User(f"member-{number}", listens_to=(room,), more=tuple(more[: channels - 1]))
