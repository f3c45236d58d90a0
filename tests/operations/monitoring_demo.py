"""Prometheus on the running system: `make monitoring-demo`.

Runs all services, two gateways behind HAProxy, chatting clients, and a native Prometheus with the deployed
configuration. Prints every target, every unhealthy rule, every firing alert, and the result of each dashboard query.
Exits with 1 if a target is down, a rule is missing or fails, or an unexpected alert fires.
"""

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.operations.stage import Stage, demonstrate, staged
from tests.support import queries
from tests.support.local_system import LocalSystem
from tests.support.prometheus import Prometheus, native_configuration

SHOWN_SERIES = 3
WORKERS = ("chat_service", "market_feed", "notifier")


def targets_of(stage: Stage, entries: Mapping[str, str]) -> dict[str, list[str]]:
    """Return host:port of every metrics endpoint, by job."""
    found = {
        worker: sorted(
            {
                url.removeprefix("http://")
                for name, url in entries.items()
                if name.startswith(worker.upper()) and name.endswith("_ADMIN_URL")
            }
        )
        for worker in WORKERS
    }
    found["gateway"] = [gateway.admin_url.removeprefix("http://") for gateway in stage.gateways]
    found["haproxy"] = [stage.balancer.metrics_url.removeprefix("http://").removesuffix("/metrics")]
    return found


def check_targets(prometheus: Prometheus) -> int:
    """Print every target and return the number of those that are down."""
    targets = prometheus.targets()
    for target in targets:
        print(f"  target {target['labels']['job']:13} {target['labels']['instance']:18} {target['health']}")
    return sum(target["health"] != "up" for target in targets)


def check_rules(prometheus: Prometheus) -> int:
    """Print unhealthy rules and firing alerts, and return the number of faults."""
    loaded = prometheus.rules()
    unwell = [rule for rule in loaded if rule["health"] != "ok"]
    missing = {rule.get("alert") or rule["record"] for rule in queries.rules()} - {rule["name"] for rule in loaded}
    firing = [rule["name"] for rule in loaded if rule.get("state") == "firing"]
    print(f"  rules loaded {len(loaded)}, not well {len(unwell)}, missing {len(missing)}; firing: {', '.join(firing)}")
    for rule in unwell:
        print(f"    {rule['name']}: {rule['health']} {rule.get('lastError', '')}")
    return len(unwell) + len(missing) + (firing != ["Watchdog"])


def show(prometheus: Prometheus, asked: list[queries.RecordedQuery]) -> None:
    """Print the result of each query."""
    empty = 0
    for query in asked:
        series = prometheus.query(query.text)
        empty += not series
        values = ", ".join(f"{label(one)} {float(one['value'][1]):.4g}" for one in series[:SHOWN_SERIES])
        more = f" and {len(series) - SHOWN_SERIES} more" if len(series) > SHOWN_SERIES else ""
        print(f"  {query.place:48} {query.text}\n      {values or 'nothing'}{more}")
    print(f"  queries {len(asked)}, of which {empty} found nothing: what they look for did not happen")


def label(series: Mapping[str, Any]) -> str:
    """Return the labels that distinguish a series from its neighbours."""
    return "/".join(value for name, value in series["metric"].items() if name not in {"__name__", "job"})


async def run(arguments: argparse.Namespace, directory: Path, system: LocalSystem) -> int:
    """Run once and return the number of faults."""
    async with staged(directory, system, 2, arguments.rooms) as stage:
        await stage.add(stage.gateways[1])
        await stage.come(arguments.clients)
        stop = asyncio.Event()
        talking = stage.tasks.create_task(stage.talk(arguments.rate, stop))
        with Prometheus(directory, native_configuration(targets_of(stage, system.entries()))) as prometheus:
            await asyncio.sleep(arguments.seconds)
            faults = await asyncio.to_thread(check_targets, prometheus)
            faults += await asyncio.to_thread(check_rules, prometheus)
            await asyncio.to_thread(show, prometheus, queries.dashboard_queries())
        stop.set()
        await talking
    return faults


if __name__ == "__main__":
    demonstrate(run, __doc__, seconds=100, clients=200, rooms=20, rate=40)
