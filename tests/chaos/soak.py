"""Mixed load with churn over time, and a check for growth: `make soak MINUTES=10`.

Clients connect and disconnect, are cut, freeze, read slowly and come in storms; nothing else fails. Memory, open files,
tasks, connections and queues are sampled; a straight line through each figure must not rise beyond its bound. Every
item is checked as well.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.bench.processes import memory_bytes
from tests.chaos.plan import Choice, Kind, make_plan
from tests.chaos.report import report
from tests.chaos.run import ChaosOutcome, run
from tests.chaos.system import MEBIBYTE, Patient, patient
from tests.chaos.traffic import TrafficRates, quiet_connections
from tests.chaos.trend import Trend, trend
from tests.support.infrastructure import Infrastructure
from tests.support.scrape import samples

INTERVAL_S = 5.0
PAUSES_S = (2.0, 5.0)
CHURN = tuple(map(Choice, (Kind.CUT_CLIENTS, Kind.STUCK_CLIENTS, Kind.SLOW_CLIENTS, Kind.STORM, Kind.REPEAT_EVENTS)))
# Bounded caches that still fill: recent messages, 2,000 per partition; RabbitMQ's in-memory log, 64 MB.
MEMORY_GROWTH_MAX_MIB = {"chat_service": 24.0, "broker": 96.0}
GROWTH_MAX = {"memory MiB": 12.0, "open files": 12.0, "tasks": 30.0, "connections": 6.0, "messages in queues": 20.0}


class Watch:
    """Samples by process and figure."""

    def __init__(self, system: Patient) -> None:
        self.samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._system = system

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await asyncio.to_thread(self._sample)
            await asyncio.sleep(INTERVAL_S)

    def _sample(self) -> None:
        at_s = time.monotonic()
        for name in self._system.names:
            for figure, value in self._figures(name).items():
                self.samples.setdefault((name, figure), []).append((at_s, value))
        self.samples.setdefault(("broker", "memory MiB"), []).append(
            (at_s, memory_bytes(self._system.infrastructure.broker.pid) / MEBIBYTE)
        )

    def _figures(self, name: str) -> Mapping[str, float]:
        pid = self._system.pid(name)
        if pid is None:
            return {}
        found = {"memory MiB": memory_bytes(pid) / MEBIBYTE, "open files": float(len(os.listdir(f"/proc/{pid}/fd")))}
        try:
            scraped = samples(f"{self._system.admin_url(name)}/metrics")
        except (OSError, ValueError):
            return found
        for metric, figure in (
            ("event_loop_tasks", "tasks"),
            ("gateway_connections", "connections"),
            ("bus_queue_depth", "messages in queues"),
        ):
            values = [one.value for one in scraped if one.name == metric]
            if values:
                found[figure] = sum(values)
        return found

    def trends(self) -> dict[tuple[str, str], Trend]:
        """Return the line through each figure."""
        return {key: trend(values) for key, values in self.samples.items()}


def bound_of(name: str, figure: str) -> float:
    """Return the allowed growth of a process's figure over a run."""
    service = name.partition("-")[0]
    return MEMORY_GROWTH_MAX_MIB.get(service, GROWTH_MAX[figure]) if figure == "memory MiB" else GROWTH_MAX[figure]


def print_trends(trends: Mapping[tuple[str, str], Trend]) -> int:
    """Print the table and return the number of figures that grew beyond their bound."""
    grown = 0
    print(f"\n  {'process':16} {'figure':20} {'first':>8} {'last':>8} {'most':>8} {'growth':>8} {'bound':>6}")
    for (name, figure), line in sorted(trends.items()):
        bound = bound_of(name, figure)
        too_much = line.growth > bound
        grown += too_much
        numbers = f"{line.first:8.1f} {line.last:8.1f} {line.most:8.1f} {line.growth:8.1f} {bound:6.0f}"
        print(f"  {name:16} {figure:20} {numbers}{'  GROWS' if too_much else ''}")
    return grown


async def soak(system: Patient, minutes: float, load: float, seed: int) -> tuple[ChaosOutcome, Watch]:
    """Run for the given time."""
    count = round(minutes * 60 / (sum(PAUSES_S) / 2))
    watch = Watch(system)
    watching = asyncio.create_task(watch.run())
    try:
        plan = make_plan(seed, count, CHURN, PAUSES_S)
        rates = TrafficRates(load)
        return await run(system, plan, seed, rates=rates, at_most_s=minutes * 60, say=lambda _: None), watch
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--load", type=float, default=2.0, help="1 is 30 messages a second")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with quiet_connections(), tempfile.TemporaryDirectory(prefix="realtime-soak-") as name:
        directory = Path(name)
        with Infrastructure(directory) as infrastructure, patient(directory / "system", infrastructure) as system:
            outcome, watch = asyncio.run(soak(system, arguments.minutes, arguments.load, arguments.seed))
    violations = report(outcome, arguments.seed)
    grown = print_trends(watch.trends())
    print(f"\n{grown} figures grow")
    sys.exit(1 if violations or grown else 0)


if __name__ == "__main__":
    main()
