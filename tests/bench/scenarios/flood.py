"""Overload: 200 senders in 200 rooms at the saturation rate, and at twice and five times that rate.

For each rate: the goodput (messages acknowledged in the measured time), the CPU seconds that the servers got for it,
the time to the ack of what was taken and to the refusal of what was not, the lines logged, and the servers' CPU from
the sixth second after the flood on, beside that of the idle system before.

`--rate` gives the saturation rate; without it the search of `quiet --saturation` finds it first.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import system
from tests.bench.fleet import LoadFailed
from tests.bench.quiet import QuietLoad, QuietMeter, QuietRun, idle_run
from tests.bench.report import ScenarioOutcome
from tests.bench.scenarios.quiet import WARM_RATE, WARM_S, saturation_of
from tests.bench.system import Bench
from tests.bench.tally import merged

FACTORS = (1.0, 2.0, 5.0)
IDLE_S = 5.0
REST_S = 5.0
GOODPUT_MIN = 0.9  # of that at saturation, per CPU second of the servers
ANSWER_MAX_MS = 1_000.0


@dataclass(frozen=True)
class FloodRun:
    """One rate: its load, the lines that the services logged, and the idle system after it."""

    factor: float
    load: QuietRun
    log_lines: int
    after: QuietRun

    @property
    def goodput(self) -> float:
        """Return the acknowledged messages per second."""
        return self.load.tally.acked_in_time / self.load.seconds

    @property
    def unanswered(self) -> int:
        """Return the messages that were neither acknowledged nor refused."""
        tally = self.load.tally
        return tally.sent - tally.acked - tally.refused

    @property
    def per_cpu_s(self) -> float:
        """Return the acknowledged messages per CPU second of all servers."""
        return self.load.tally.acked_in_time / sum(self.load.cpu_s.values())


def run(options: Namespace) -> ScenarioOutcome:
    """Flood a system of two gateways."""
    with system.running({"GATEWAYS": "2"}) as bench:
        load = QuietLoad(bench.host, bench.port, bench.rooms(options.senders), options)
        load.run(WARM_RATE, WARM_S, QuietMeter(bench.pids))
        saturation = options.rate or _saturation(load, bench, options)
        before = idle_run(IDLE_S, QuietMeter(bench.pids))
        floods = [_flood(load, bench, factor, saturation * factor, options.seconds) for factor in FACTORS]
    problems = list(_problems(floods))
    settings = {"rooms": options.senders, "saturation": round(saturation), "seconds": options.seconds}
    figures = {"problems": problems, "floods": [_figures(flood) for flood in floods]}
    lines = ["", *_table(floods, before), "", *(problems or ["every bound holds"])]
    whole = merged(flood.load.tally for flood in floods)
    return ScenarioOutcome("flood", "realtime", settings, whole, figures=figures, lines=lines)


def _saturation(load: QuietLoad, bench: Bench, options: Namespace) -> float:
    found = saturation_of("flood", lambda rate, seconds: load.run(rate, seconds, QuietMeter(bench.pids)), options)
    if not found:
        raise LoadFailed("no rate holds")
    return found


def _flood(load: QuietLoad, bench: Bench, factor: float, rate: float, seconds: float) -> FloodRun:
    print(f"  {factor:g} times: {rate:,.0f}/s …", file=sys.stderr, flush=True)
    logged = _log_lines(bench.local.directory)
    flooded = load.run(rate, seconds, QuietMeter(bench.pids))
    time.sleep(REST_S)
    after = idle_run(IDLE_S, QuietMeter(bench.pids))
    return FloodRun(factor, flooded, _log_lines(bench.local.directory) - logged, after)


def _log_lines(directory: Path) -> int:
    """Return the lines that the services have logged: everything goes through the supervisor."""
    with (directory / "supervisor.out").open("rb") as output:
        return sum(1 for _ in output)


def _problems(floods: Sequence[FloodRun]) -> Iterable[str]:
    least = GOODPUT_MIN * floods[0].per_cpu_s
    for flood in floods:
        tally = flood.load.tally
        if flood.per_cpu_s < least:
            yield f"{flood.factor:g} times: {flood.per_cpu_s:,.0f} messages per CPU second, wanted {least:,.0f}"
        if (slowest := tally.answers.figures()["max"] or 0.0) > ANSWER_MAX_MS:
            yield f"{flood.factor:g} times: a message was acknowledged after {slowest:,.0f} ms"
        if tally.lost or tally.repeated or tally.disordered:
            yield f"{flood.factor:g} times: {tally.lost} lost, {tally.repeated} repeated, {tally.disordered} reordered"
        if flood.unanswered:
            yield f"{flood.factor:g} times: {flood.unanswered} never answered"


def _table(floods: Sequence[FloodRun], before: QuietRun) -> list[str]:
    def row(title: str, cells: Iterable[object]) -> str:
        return f"{title:36}" + "".join(f"{cell!s:>14}" for cell in cells)

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:,.1f}"

    answers = [flood.load.tally.answers for flood in floods]
    refusals = [flood.load.tally.refusals for flood in floods]
    return [
        row("", (f"{flood.factor:g} times" for flood in floods)),
        row("offered/s", (f"{flood.load.rate:,.0f}" for flood in floods)),
        row("acknowledged/s", (f"{flood.goodput:,.0f}" for flood in floods)),
        row("acknowledged per CPU s of servers", (f"{flood.per_cpu_s:,.0f}" for flood in floods)),
        row("refused", (f"{flood.load.tally.refused:,}" for flood in floods)),
        row("never answered", (f"{flood.unanswered:,}" for flood in floods)),
        *(row(f"ack p{p:g} ms", (ms(taken.at(p)) for taken in answers)) for p in (50.0, 99.0, 99.9, 100.0)),
        *(row(f"refusal p{p:g} ms", (ms(refused.at(p)) for refused in refusals)) for p in (50.0, 99.0)),
        row("delivery p99 ms", (ms(flood.load.tally.latencies.at(99)) for flood in floods)),
        row("lost, repeated, reordered", (_wrong(flood) for flood in floods)),
        row("log lines", (f"{flood.log_lines:,}" for flood in floods)),
        row("CPU s, servers", (f"{sum(flood.load.cpu_s.values()):.1f}" for flood in floods)),
        row("  of which gateways", (_cpu_of(flood, "gateway") for flood in floods)),
        row("  of which chat_service", (_cpu_of(flood, "chat_service") for flood in floods)),
        row("  of which broker", (_cpu_of(flood, "broker") for flood in floods)),
        row("  of which database", (_cpu_of(flood, "database") for flood in floods)),
        row(
            f"idle CPU ms/s (before: {before.cpu_ms():.0f})",
            (f"{flood.after.cpu_ms():.0f}" for flood in floods),
        ),
    ]


def _wrong(flood: FloodRun) -> str:
    tally = flood.load.tally
    return f"{tally.lost}, {tally.repeated}, {tally.disordered}"


def _cpu_of(flood: FloodRun, kind: str) -> str:
    return f"{sum(used for name, used in flood.load.cpu_s.items() if name.startswith(kind)):.1f}"


def _figures(flood: FloodRun) -> dict[str, object]:
    return {
        "factor": flood.factor,
        "offered": flood.load.rate,
        "goodput": round(flood.goodput, 1),
        "goodput_per_cpu_s": round(flood.per_cpu_s, 1),
        "answers_ms": flood.load.tally.answers.figures(),
        "refused": flood.load.tally.refused,
        "log_lines": flood.log_lines,
        "idle_after_ms_per_s": round(flood.after.cpu_ms(), 1),
    }
