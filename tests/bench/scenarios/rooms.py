"""Persisted chat: n senders, each in a room of its own that it listens to."""

from argparse import Namespace

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.jobs.chat import Chat, User
from tests.bench.processes import CpuMeter
from tests.bench.report import Outcome
from tests.bench.system import Bench


def run(options: Namespace) -> Outcome:
    """Socket → command → stored, synced → delivery → socket."""
    with system.running() as bench:
        return on(bench, options)


def on(bench: Bench, options: Namespace) -> Outcome:
    """The same on a system that runs already."""
    rooms = bench.rooms(options.senders)
    users = [User(f"chatter-{number}", (room,), (room,)) for number, room in enumerate(rooms)]
    chat = Chat("chatters", bench.host, bench.port, users, options.rate, options.size)
    with Fleet([chat], options.timeout) as fleet:
        fleet.wait_ready()
        meter = CpuMeter(bench.pids)
        window = fleet.run(options.seconds, options.warmup, meter)
        tally = fleet.collect(["chatters"])
    settings = {"rooms": len(rooms), "rate": options.rate, "size": options.size}
    return Outcome("rooms", "realtime", settings, tally, window, meter.used_s)
