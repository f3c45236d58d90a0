"""Fan-out with one socket that stops reading: its cost for the gateway and for the others."""

from argparse import Namespace

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.jobs.lines import Lines
from tests.bench.jobs.listen import Listen
from tests.bench.processes import CpuMeter, memory_bytes
from tests.bench.report import ScenarioOutcome
from tests.bench.scenarios.fanout import listeners
from tests.bench.system import Bench
from tests.bench.worker import LoadJob


def run(options: Namespace) -> ScenarioOutcome:
    """Run without it, then with it, on one system; return the second result beside the first one's p99."""
    with system.running() as bench:
        without, _ = _once(bench, options, 0)
        outcome, grown = _once(bench, options, 1)
    outcome.figures |= {
        "p99_ms_without": without.tally.latencies.at(99),
        "p99_ms_with": outcome.tally.latencies.at(99),
        "gateway_grew_by_bytes": grown,
        "stuck_sockets_closed": round(outcome.tally.extra.get("stuck_closed", 0)),
    }
    return outcome


def _once(bench: Bench, options: Namespace, stuck: int) -> tuple[ScenarioOutcome, int]:
    (room,) = bench.rooms(1)
    crowds: list[Listen] = listeners(bench, room, options)
    crowds[0].stuck = stuck
    jobs: list[LoadJob] = [*crowds, Lines("publisher", bench.amqp_url, room, options.rate, options.size)]
    gateway = bench.pids["gateway"]
    with Fleet(jobs, options.timeout) as fleet:
        fleet.wait_ready()
        meter = CpuMeter(bench.pids)
        before_bytes = memory_bytes(gateway)
        window = fleet.run(options.seconds, options.warmup, meter)
        after_bytes = memory_bytes(gateway)
        tally = fleet.collect(["publisher"])
    settings = {"sockets": options.sockets, "stuck": stuck, "rate": options.rate, "size": options.size}
    return ScenarioOutcome("slow", "realtime", settings, tally, window, meter.used_s), after_bytes - before_bytes
