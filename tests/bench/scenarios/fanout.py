"""One room, n sockets, r messages per second."""

from argparse import Namespace

from tests.bench import system
from tests.bench.dialects import Realtime
from tests.bench.fleet import Fleet
from tests.bench.jobs.chat import ChatLoad, User
from tests.bench.jobs.lines import Lines
from tests.bench.jobs.listen import Listen
from tests.bench.processes import CpuMeter, memory_bytes
from tests.bench.report import ScenarioOutcome
from tests.bench.system import Bench
from tests.bench.worker import LoadJob


def run(options: Namespace) -> ScenarioOutcome:
    """Publish prepared deliveries (`--mode lines`), or send with chat:send and persist (`--mode chat`)."""
    with system.running() as bench:
        return on(bench, options)


def on(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Run on a system that is already running."""
    (room,) = bench.rooms(1)
    jobs: list[LoadJob] = list(listeners(bench, room, options))
    if options.mode == "lines":
        jobs.append(Lines("publisher", bench.amqp_url, room, options.rate, options.size))
    else:
        senders = [User(f"sender-{number}", (room,)) for number in range(options.senders)]
        jobs.append(
            ChatLoad("publisher", bench.host, bench.port, senders, options.rate, options.size, first_address=60)
        )
    gateway = bench.pids["gateway"]
    before_bytes = memory_bytes(gateway)
    with Fleet(jobs, options.timeout) as fleet:
        fleet.wait_ready()
        meter = CpuMeter(bench.pids)
        after_bytes = memory_bytes(gateway)
        window = fleet.run(options.seconds, options.warmup, meter)
        tally = fleet.collect(["publisher"])
    settings = {"mode": options.mode, "sockets": options.sockets, "rate": options.rate, "size": options.size}
    figures = {
        "gateway_bytes_a_socket": (after_bytes - before_bytes) // options.sockets,
        "gateway_rss_mb_after": memory_bytes(gateway) >> 20,
    }
    return ScenarioOutcome("fanout", "realtime", settings, tally, window, meter.used_s, figures)


def listeners(bench: Bench, room: str, options: Namespace) -> list[Listen]:
    """Return `--listeners` processes that share the sockets."""
    jobs: list[Listen] = []
    for number in range(options.listeners):
        mine = range(number, options.sockets, options.listeners)
        subscription = [{"channel": "chatroom", "chatroomId": room}]
        dialects = [Realtime(f"listener-{one}", subscription) for one in mine]
        address = 2 + 10 * number
        jobs.append(Listen(f"listen {number}", bench.host, bench.port, dialects, room, first_address=address))
    return jobs
