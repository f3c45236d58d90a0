"""Authenticated connections per second, and the recovery of 10,000 clients after their gateway is killed."""

import os
import sys
import time
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.local.command import CommandLine
from deploy.local.settings import PROJECT
from tests.bench import system
from tests.bench.dialects import Realtime
from tests.bench.fleet import Fleet
from tests.bench.jobs.connect import Connect, Resume
from tests.bench.processes import CpuMeter
from tests.bench.report import ScenarioOutcome
from tests.bench.system import LIMITS, Bench
from tests.support.server_process import ServerProcess
from tests.support.services import free_port

ROOM_SIZE = 100
GATEWAY_TIMEOUT_S = 30.0


def run(options: Namespace) -> ScenarioOutcome:
    """Connect, authenticate and subscribe to one room; with `--mode resume`, lose a gateway to SIGKILL."""
    with system.running() as bench:
        return resume(bench, options) if options.mode == "resume" else on(bench, options)


def on(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Run on a system that is already running."""
    rooms = bench.rooms(max(options.sockets // ROOM_SIZE, 1))
    jobs: list[Connect] = []
    for process in range(options.listeners):
        dialects = [
            Realtime(f"comer-{number}", [{"channel": "chatroom", "chatroomId": rooms[number % len(rooms)]}])
            for number in range(process, options.sockets, options.listeners)
        ]
        concurrency = options.concurrency // options.listeners
        jobs.append(
            Connect(f"connect {process}", bench.host, bench.port, dialects, 2 + 10 * process, concurrency=concurrency)
        )
    return measure(jobs, options, "realtime", bench.pids)


def measure(jobs: list[Connect], options: Namespace, server: str, pids: dict[str, int]) -> ScenarioOutcome:
    """Run connecting jobs against any server."""
    with Fleet(jobs, options.timeout) as fleet:
        fleet.wait_ready()
        meter = CpuMeter({**pids, **fleet.pids})
        meter.begin()
        fleet.run(0.0, 0.0, CpuMeter({}))
        tally = fleet.collect([])
        meter.end()
    figures = {
        "connections_per_s": round(tally.received / tally.extra["connect_s"]),
        "turned_away_first": tally.extra["turned_away"],
        "cpu_ms_a_connection": round(sum(meter.used_s[name] for name in pids) * 1000 / max(tally.received, 1), 3),
    }
    settings = {"sockets": options.sockets, "concurrency": options.concurrency}
    return ScenarioOutcome("connect", server, settings, tally, None, meter.used_s, figures)


def resume(bench: Bench, options: Namespace) -> ScenarioOutcome:
    """Connect all clients to a second gateway and kill it; all reconnect to the first."""
    rooms = bench.rooms(max(options.sockets // ROOM_SIZE, 1))
    port = free_port()
    with TemporaryDirectory() as directory:
        doomed = ServerProcess(_second_gateway(bench, port), Path(directory) / "gateway.out")
        doomed.start()
        try:
            doomed.wait_until(lambda: "gateway_listening" in doomed.last_lines(), GATEWAY_TIMEOUT_S)
            jobs = [
                Resume(f"resume {process}", bench.host, port, bench.port, users, 2 + 50 * process)
                for process in range(options.listeners)
                for users in [_users(process, options, rooms)]
            ]
            with Fleet(jobs, options.timeout) as fleet:
                fleet.wait_ready()
                meter = CpuMeter(bench.pids)
                meter.begin()
                fleet.run(0.0, 0.0, CpuMeter({}))
                begun_s = time.monotonic()
                doomed.kill()
                tally = fleet.collect([])
                taken_s = time.monotonic() - begun_s
                meter.end()
        finally:
            doomed.kill()
    figures = {"all_back_after_s": round(taken_s, 2), "back": tally.received}
    return ScenarioOutcome(
        "connect", "realtime", {"mode": "resume", "sockets": options.sockets}, tally, None, meter.used_s, figures
    )


def _users(process: int, options: Namespace, rooms: list[str]) -> list[tuple[str, str]]:
    numbers = range(process, options.sockets, options.listeners)
    return [(f"comer-{number}", rooms[number % len(rooms)]) for number in numbers]


def _second_gateway(bench: Bench, port: int) -> CommandLine:
    entries = bench.local.entries()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        **LIMITS,
        "AMQP_URL": entries["AMQP_URL"],
        "GATEWAY_PORT": str(port),
        "ADMIN_PORT": "0",
        "DEV_MODE": "1",
        "LOG_LEVEL": "info",
        "LOG_FORMAT": "json",
    }
    return CommandLine((sys.executable, "-m", "gateway"), environment, PROJECT)
