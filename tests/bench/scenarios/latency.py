"""10,000 sockets in three channels each under light load: the time until a message reaches everybody in its room."""

from argparse import Namespace

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.jobs.chat import ChatLoad, User
from tests.bench.processes import CpuMeter
from tests.bench.report import ScenarioOutcome
from tests.bench.scenarios.idle import ROOM_SIZE, member
from tests.bench.system import Bench
from tests.bench.worker import LoadJob


def run(options: Namespace) -> ScenarioOutcome:
    """Send chat:send, stored, to the 100 sockets of a room, all rooms in turn."""
    with system.running() as bench:
        return on(bench, options)


def on(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Run on a system that is already running."""
    rooms = bench.rooms(max(options.sockets // ROOM_SIZE, 1))
    jobs: list[LoadJob] = []
    for process in range(options.listeners):
        users = [
            member(number, rooms, options.channels) for number in range(process, options.sockets, options.listeners)
        ]
        address = 2 + 10 * process
        jobs.append(ChatLoad(f"listen {process}", bench.host, bench.port, users, first_address=address, concurrency=30))
    senders = [User(f"sender-{number}", (room,)) for number, room in enumerate(rooms)]
    jobs.append(
        ChatLoad(
            "senders", bench.host, bench.port, senders, options.rate, options.size, first_address=60, concurrency=10
        )
    )
    with Fleet(jobs, options.timeout) as fleet:
        fleet.wait_ready()
        meter = CpuMeter(bench.pids)
        window = fleet.run(options.seconds, options.warmup, meter)
        tally = fleet.collect(["senders"])
    settings = {"sockets": options.sockets, "channels": options.channels, "rooms": len(rooms), "rate": options.rate}
    return ScenarioOutcome("latency", "realtime", settings, tally, window, meter.used_s)
