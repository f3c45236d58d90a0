"""The tables of the scenario `quiet`. Pure."""

from collections.abc import Callable, Sequence
from functools import partial

from tests.bench.quiet import Counted, QuietRun

ROW_NAME = 40
COUNT_NAME = 52
COLUMN = 9
SHOWN_FROM = 0.005  # a message; rarer frames and commands share one row

Measure = Callable[[QuietRun], float | None]


def main_table(ours: Sequence[QuietRun], node: Sequence[QuietRun]) -> list[str]:
    """Return the comparison: three columns a rate, ours, Node's and their ratio."""
    pairs = list(zip(ours, node, strict=True))
    heads = "".join(f"{f'{run.rate:g}/s':>{3 * COLUMN}}" for run in ours)
    sides = "".join(f"{'ours':>{COLUMN}}{'Node':>{COLUMN}}{'ratio':>{COLUMN}}" for _ in ours)
    lines = [f"{'':{ROW_NAME}}{heads}", f"{'':{ROW_NAME}}{sides}"]
    for title, measure in _MEASURES:
        cells = [(measure(mine), measure(theirs)) for mine, theirs in pairs]
        if any(mine or theirs for mine, theirs in cells):
            lines.append(f"{title:{ROW_NAME}}" + "".join(_three(mine, theirs) for mine, theirs in cells))
    return lines


def count_table(title: str, idle: Counted, idle_s: float, runs: Sequence[tuple[QuietRun, Counted]]) -> list[str]:
    """Return counts per message, less what happens without load, which the first column shows per second."""
    heads = "".join(f"{f'{run.rate:g}/s':>{COLUMN}}" for run, _ in runs)
    lines = [f"{title:<{COUNT_NAME}}{'idle/s':>{COLUMN}}{heads}"]
    totals, rare, rare_idle = [0.0] * len(runs), [0.0] * len(runs), 0.0
    for key in sorted({*idle, *(key for _, counted in runs for key in counted)}):
        each_s = idle[key] / idle_s
        cells = [max(counted[key] - each_s * run.seconds, 0.0) / run.messages for run, counted in runs]
        totals = [total + cell for total, cell in zip(totals, cells, strict=True)]
        if any(cell >= SHOWN_FROM for cell in cells):
            lines.append(_count_row(" ".join(key), each_s, cells))
        else:
            rare_idle += each_s
            rare = [total + cell for total, cell in zip(rare, cells, strict=True)]
    lines.append(_count_row("all that messages do not cause", rare_idle, rare))
    return [*lines, _count_row("all", sum(idle.values()) / idle_s, totals)]


def _cpu(run: QuietRun, kinds: Sequence[str]) -> float | None:
    return run.cpu_ms(*kinds) if not kinds or run.has(*kinds) else None


def _percentile(run: QuietRun, of: str, percentile: float) -> float | None:
    latencies = run.tally.answers if of == "ack" else run.tally.latencies
    return latencies.at(percentile)


def _woken(run: QuietRun, kind: str, index: int) -> float | None:
    return run.woken(kind)[index] / run.messages if run.has(kind) else None


def _count(run: QuietRun, name: str) -> float:
    return int(getattr(run.tally, name))


_PROCESSES = {
    "all servers": (),
    "gateways": ("gateway",),
    "chat_service": ("chat_service",),
    "market_feed, notifier": ("market_feed", "notifier"),
    "broker": ("broker",),
    "node": ("node",),
    "database": ("database",),
}
_MEASURES: list[tuple[str, Measure]] = [
    *((f"CPU ms a message, {name}", partial(_cpu, kinds=kinds)) for name, kinds in _PROCESSES.items()),
    *(
        (f"{of} p{percentile:g} ms", partial(_percentile, of=of, percentile=percentile))
        for of in ("ack", "delivery")
        for percentile in (50.0, 99.0)
    ),
    *(
        (f"wake-ups a message, {kind} {threads}", partial(_woken, kind=kind, index=index))
        for kind in ("gateway", "chat_service", "node", "database")
        for index, threads in enumerate(("loop", "others"))
    ),
    *((name, partial(_count, name=name)) for name in ("sent", "refused", "lost", "repeated", "disordered")),
]


def _count_row(name: str, idle_each_s: float, cells: Sequence[float]) -> str:
    values = "".join(f"{cell:>{COLUMN}.3f}" for cell in cells)
    return f"{'  ' + name:<{COUNT_NAME}}{idle_each_s:>{COLUMN}.2f}{values}"


def _three(mine: float | None, theirs: float | None) -> str:
    ratio = mine / theirs if mine is not None and theirs else None
    return "".join(f"{_number(value):>{COLUMN}}" for value in (mine, theirs, ratio))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
