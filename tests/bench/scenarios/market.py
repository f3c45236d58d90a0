"""n sockets, each on s symbols; market_feed's simulation provides the prices."""

from argparse import Namespace

from tests.bench import system
from tests.bench.fleet import Fleet
from tests.bench.jobs.prices import PriceLoad
from tests.bench.processes import CpuMeter
from tests.bench.report import ScenarioOutcome


def run(options: Namespace) -> ScenarioOutcome:
    """Run with `--rate` ticks per second per symbol."""
    symbols = [f"LOAD{number}" for number in range(options.symbols)]
    settings = {
        "MARKET_SOURCE": "sim",
        "MARKET_SYMBOLS": ",".join(symbols),
        "MARKET_SIM_TICKS_PER_S": str(options.rate),
    }
    with system.running(settings) as bench:
        share, rest = divmod(options.sockets, options.listeners)
        jobs = [
            PriceLoad(
                f"listen {process}",
                bench.host,
                bench.port,
                share + (process < rest),
                symbols,
                options.max_rate,
                2 + 10 * process,
            )
            for process in range(options.listeners)
        ]
        with Fleet(jobs, options.timeout) as fleet:
            fleet.wait_ready()
            meter = CpuMeter(bench.pids)
            window = fleet.run(options.seconds, options.warmup, meter)
            tally = fleet.collect([])
    shown = {"sockets": options.sockets, "symbols": options.symbols, "rate": options.rate, "max_rate": options.max_rate}
    return ScenarioOutcome("market", "realtime", shown, tally, window, meter.used_s)
