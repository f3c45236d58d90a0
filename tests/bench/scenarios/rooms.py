"""Persisted chat: n senders, each in its own room, to which it is subscribed."""

from argparse import Namespace

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.jobs.chat import ChatLoad, User
from tests.bench.processes import CpuMeter
from tests.bench.report import ScenarioOutcome
from tests.bench.system import Bench


def run(options: Namespace) -> ScenarioOutcome:
    """Measure socket → command → stored, synced → delivery → socket."""
    with system.running() as bench:
        return on(bench, options)


def on(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Run on a system that is already running."""
    rooms = bench.rooms(options.senders)
    users = [User(f"chatter-{number}", (room,), (room,)) for number, room in enumerate(rooms)]
    chat = ChatLoad("chatters", bench.host, bench.port, users, options.rate, options.size)
    with Fleet([chat], options.timeout) as fleet:
        fleet.wait_ready()
        meter = CpuMeter(bench.pids)
        window = fleet.run(options.seconds, options.warmup, meter)
        tally = fleet.collect(["chatters"])
    settings = {"rooms": len(rooms), "rate": options.rate, "size": options.size}
    return ScenarioOutcome("rooms", "realtime", settings, tally, window, meter.used_s)
