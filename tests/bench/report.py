"""The result of a run: one table, and the same as JSON under build/bench."""

import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.tally import MeasureWindow, Tally

CLOSED_SHOWN = 5
CLOSED_WIDTH = 80
DIRECTORY = Path(__file__).resolve().parents[2] / "build" / "bench"


@dataclass
class ScenarioOutcome:
    """The result of one scenario against one server."""

    scenario: str
    server: str
    settings: Mapping[str, Any]
    tally: Tally
    window: MeasureWindow | None = None
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)  # figures of this scenario alone
    lines: Sequence[str] = ()  # its own table, which replaces the rows of `figures`

    def as_dict(self) -> dict[str, Any]:
        """Return every figure."""
        tally = self.tally
        found: dict[str, Any] = {
            "scenario": self.scenario,
            "server": self.server,
            "settings": dict(self.settings),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": f"python -m tests.bench {' '.join(sys.argv[1:])}",
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
        }
        if self.window is not None:
            found["measured_s"] = self.window.measured_s
            found["deliveries_per_s"] = round(tally.delivered / self.window.measured_s)
        found["latency_ms"] = tally.latencies.figures() if tally.latencies.count else None
        found["answer_ms"] = tally.answers.figures() if tally.answers.count else None
        found["cpu_s"] = {name: round(used, 2) for name, used in self.cpu_s.items()}
        if tally.delivered:
            million = tally.delivered / 1e6
            found["cpu_s_per_million"] = {name: round(used / million, 3) for name, used in self.cpu_s.items()}
        counts = ("sent", "acked", "refused", "received", "lost", "repeated", "disordered", "unlike")
        return found | {name: getattr(tally, name) for name in counts} | {"closed": dict(tally.closed)} | self.figures


def write(outcome: ScenarioOutcome) -> Path:
    """Write the result as JSON and return the path."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = DIRECTORY / f"{stamp}-{outcome.scenario}-{outcome.server.replace(' ', '_')}.json"
    path.write_text(json.dumps(outcome.as_dict(), indent=2) + "\n")
    return path


def table(outcome: ScenarioOutcome) -> str:
    """Return the result as lines of name and value."""
    found = outcome.as_dict()
    settings = " ".join(f"{name}={value}" for name, value in outcome.settings.items())
    lines = [f"{outcome.scenario} · {outcome.server} · {settings}"]

    def row(name: str, value: object) -> None:
        lines.append(f"  {name:24} {value}")

    if "deliveries_per_s" in found:
        row("deliveries/s", f"{found['deliveries_per_s']:,}  (measured {found['measured_s']:g} s)")
    for name, title in (("latency_ms", "latency ms"), ("answer_ms", "answers ms")):
        if found[name]:
            row(title, "  ".join(f"{key} {value}" for key, value in found[name].items()))
    counted = ("sent", "acked", "received", "refused", "lost", "repeated", "disordered", "unlike")
    row("messages", "  ".join(f"{name} {found[name]:,}" for name in counted if found[name] or name in counted[4:7]))
    if found["closed"]:
        kinds = Counter(found["closed"]).most_common(CLOSED_SHOWN)
        row("closed by code", "  ".join(f"{count:,} {str(kind)[:CLOSED_WIDTH]}" for kind, count in kinds))
    per_million = found.get("cpu_s_per_million", {})
    for name, used in found["cpu_s"].items():
        if used >= 0.01:
            each = f"   {per_million[name]:.3f} per million" if name in per_million else ""
            row(f"CPU s, {name}", f"{used:.2f}{each}")
    for name, value in ({} if outcome.lines else outcome.figures).items():
        row(name.replace("_", " "), f"{value:,}" if isinstance(value, int | float) else value)
    return "\n".join([*lines, *(f"  {line}".rstrip() for line in outcome.lines)])
