"""A system at low rates beside the Node server that a user would write instead, on the same database server.

1. At each rate: CPU per message of every process, latencies to the ack and to another socket, wake-ups.
2. The same rates on `peers/quiet.js`, with the database counted too.
3. A short pass behind proxies that count AMQP frames and database commands.
4. With `--saturation`, the highest rate of each side with p99 ≤ 250 ms.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from shared.ids import Prefix, new_id
from tests.bench import system
from tests.bench.fleet import LoadFailed
from tests.bench.peerservers import PeerProgram, node_command, serving
from tests.bench.quiet import QuietLoad, QuietMeter, QuietRun, idle_run, python_loop_ms
from tests.bench.quiet_tables import count_table, main_table
from tests.bench.report import ScenarioOutcome
from tests.bench.saturation import SaturationSearch
from tests.bench.system import Bench
from tests.bench.tally import merged
from tests.bench.wirecount import AmqpFrames, CountingProxy, DatabaseCommands
from tests.support.infrastructure import Infrastructure
from tests.support.tokens import SECRET

HOST = "127.0.0.1"
LIMIT_MS = 250.0
COUNT_S = 6.0
WARM_RATE, WARM_S = 200.0, 3.0  # every room once: first messages join, and code is loaded
IDLE_S = 5.0
FIRST_RATE = 500.0
HIGHEST_RATE = 16_000.0


def run(options: Namespace) -> ScenarioOutcome:
    """Measure both sides and return their table."""
    rates = [float(rate) for rate in options.rates.split(",")]
    with TemporaryDirectory(prefix="realtime-quiet-") as directory, Infrastructure(Path(directory)) as infrastructure:
        comparison = QuietComparison(options, infrastructure)
        loops = [python_loop_ms()]
        ours, idle, ours_max = comparison.ours(rates)
        loops.append(python_loop_ms())
        node, node_max = comparison.node(rates)
        loops.append(python_loop_ms())
        lines = ["", *main_table(ours, node), "", f"idle: {idle.cpu_ms():.1f} CPU ms a second of all servers"]
        lines.append(f"a fixed Python loop, before, between and behind the two sides: {loops} ms")
        if options.counts:
            lines += ["", *comparison.counts(rates)]
        if options.saturation:
            lines += ["", *_saturation_lines(ours_max, node_max)]
    settings = {"rooms": options.senders, "rates": options.rates, "seconds": options.seconds, "size": options.size}
    figures = {
        "ours": [_figures(one) for one in ours],
        "node": [_figures(one) for one in node],
        "python_loop_ms": loops,
        "saturation": {"ours": ours_max, "node": node_max} if options.saturation else None,
    }
    whole = merged(one.tally for one in ours)
    return ScenarioOutcome("quiet", "realtime", settings, whole, figures=figures, lines=lines)


class QuietComparison:
    """Both sides, one after the other, on one broker and one database server."""

    def __init__(self, options: Namespace, infrastructure: Infrastructure) -> None:
        self._options = options
        self._infrastructure = infrastructure

    def ours(self, rates: Sequence[float]) -> tuple[list[QuietRun], QuietRun, float]:
        """Return the runs of the whole system, one without load, and its saturation, or 0.0 if that is not asked."""
        infrastructure = self._infrastructure
        with self._system(infrastructure.amqp_url, infrastructure.mongodb_uri) as (bench, pids):
            load = self._load(bench)
            self._run("ours, warm-up", load, WARM_RATE, QuietMeter(pids), WARM_S)
            runs = [self._run("ours", load, rate, QuietMeter(pids)) for rate in rates]
            idle = idle_run(IDLE_S, QuietMeter(pids))
            highest = self._saturation("ours", lambda: load, pids) if self._options.saturation else 0.0
        return runs, idle, highest

    def node(self, rates: Sequence[float]) -> tuple[list[QuietRun], float]:
        """Return the runs of the Node server, and its saturation, or 0.0 if that is not asked."""
        arguments = (self._infrastructure.mongodb_uri, new_id(Prefix.COMMAND), SECRET)
        program = PeerProgram("quiet", ("ws", "jsonwebtoken", "mongodb"), (), node_command("quiet.js", *arguments))
        with serving(program) as running:
            pids = {"node": running.process.pid, "database": self._infrastructure.database.pid}

            def load() -> QuietLoad:
                rooms = [new_id(Prefix.ROOM) for _ in range(self._options.senders)]
                return QuietLoad(HOST, running.port, rooms, self._options, on_peer=True)

            self._run("node, warm-up", load(), WARM_RATE, QuietMeter(pids), WARM_S)
            runs = [self._run("node", load(), rate, QuietMeter(pids)) for rate in rates]
            highest = self._saturation("node", load, pids) if self._options.saturation else 0.0
        return runs, highest

    def counts(self, rates: Sequence[float]) -> list[str]:
        """Return the tables of frames and commands, from a system behind counting proxies."""
        database = urlsplit(self._infrastructure.mongodb_uri)
        broker = urlsplit(self._infrastructure.amqp_url)
        with ExitStack() as stack:
            frames = stack.enter_context(CountingProxy((HOST, broker.port or 0), AmqpFrames))
            commands = stack.enter_context(CountingProxy((HOST, database.port or 0), DatabaseCommands))
            amqp_url = f"amqp://guest:guest@{HOST}:{frames.port}/"
            mongodb_uri = f"mongodb://{HOST}:{commands.port}/?directConnection=true"
            bench, pids = stack.enter_context(self._system(amqp_url, mongodb_uri))
            load, proxies = self._load(bench), (frames, commands)
            self._run("counts, warm-up", load, WARM_RATE, QuietMeter(pids), WARM_S)
            idle = idle_run(IDLE_S, QuietMeter(pids, proxies))
            runs = [self._run("counts", load, rate, QuietMeter(pids, proxies), COUNT_S) for rate in rates]
        tables: list[str] = []
        for number, title in enumerate(("AMQP frames a message", "database commands a message")):
            counted = [(one, one.counts[number]) for one in runs]
            tables += [*count_table(title, idle.counts[number], idle.seconds, counted), ""]
        return tables

    @contextmanager
    def _system(self, amqp_url: str, mongodb_uri: str) -> Iterator[tuple[Bench, dict[str, int]]]:
        """Yield a system with two gateways, and the processes to measure."""
        settings = {
            "GATEWAYS": "2",
            "AMQP_URL": amqp_url,
            "MONGODB_URI": mongodb_uri,
            "MONGODB_DATABASE": new_id(Prefix.COMMAND),
        }
        servers = {"broker": self._infrastructure.broker.pid, "database": self._infrastructure.database.pid}
        with system.running(settings) as bench:
            yield bench, bench.pids | servers

    def _load(self, bench: Bench) -> QuietLoad:
        return QuietLoad(bench.host, bench.port, bench.rooms(self._options.senders), self._options)

    def _run(
        self, side: str, load: QuietLoad, rate: float, meter: QuietMeter, seconds: float | None = None
    ) -> QuietRun:
        print(f"  {side}: {rate:,.0f}/s …", file=sys.stderr, flush=True)
        return load.run(rate, seconds or self._options.seconds, meter)

    def _saturation(self, side: str, load: Callable[[], QuietLoad], pids: dict[str, int]) -> float:
        return saturation_of(
            side, lambda rate, seconds: self._run(side, load(), rate, QuietMeter(pids), seconds), self._options
        )


def saturation_of(side: str, run: Callable[[float, float], QuietRun], options: Namespace) -> float:
    """Search for the highest rate that holds, within the budget of `--budget` seconds. `run` makes one trial."""

    def holds(rate: float, seconds: float) -> bool:
        try:
            found = run(rate, seconds)
        except LoadFailed as failure:
            print(f"    {failure}", file=sys.stderr)
            return False
        held = found.holds(LIMIT_MS)
        worst = max(found.tally.latencies.at(99) or 0.0, found.tally.answers.at(99) or 0.0)
        text = f"{rate:,.0f}/s for {seconds:g} s: p99 {worst:,.1f} ms, {'holds' if held else 'fails'}"
        print(f"    {side} {text}", file=sys.stderr, flush=True)
        return held

    search = SaturationSearch(holds, time.monotonic, options.budget, options.seconds)
    return search.run(FIRST_RATE, HIGHEST_RATE)


def _saturation_lines(ours: float, node: float) -> list[str]:
    ratio = f"{ours / node:.2f}" if node else "-"
    limit = f"p99 ≤ {LIMIT_MS:g} ms"
    return [f"saturation ({limit}): ours {ours:,.0f}/s, Node {node:,.0f}/s, ratio {ratio}"]


def _figures(one: QuietRun) -> dict[str, object]:
    return {
        "rate": one.rate,
        "cpu_ms_a_message": round(one.cpu_ms(), 3),
        "cpu_ms_by_process": {name: round(used * 1000 / one.messages, 3) for name, used in one.cpu_s.items()},
        "ack_ms": one.tally.answers.figures(),
        "delivery_ms": one.tally.latencies.figures(),
        "wakeups": {name: woken._asdict() for name, woken in one.wakeups.items()},
        "lost": one.tally.lost,
        "refused": one.tally.refused,
    }
