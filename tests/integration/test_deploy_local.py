"""`python -m deploy.local run` without the services: broker, database, and the supervisor."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jwt
import pytest

from deploy.local.amqp_probe import accepts_logins
from deploy.local.leftovers import marked_pids
from deploy.local.settings import PROJECT
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem, settings_on
from tests.support.waiting import block_until

NO_SERVICES = {"GATEWAYS": "0", "CHAT_SERVICES": "0", "MARKET_FEEDS": "0", "NOTIFIERS": "0"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    with LocalSystem(tmp_path_factory.mktemp("a local"), NO_SERVICES) as system:
        yield system


def run_local(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "deploy.local", *arguments]
    return subprocess.run(
        command,
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def amqp_port(system: LocalSystem) -> int:
    return int(system.entries()["AMQP_URL"].rstrip("/").rsplit(":", 1)[1])


def test_run_file_is_complete_and_private(system: LocalSystem) -> None:
    entries = system.entries()
    assert accepts_logins(amqp_port(system))
    assert entries["MONGODB_URI"].startswith("mongodb://127.0.0.1:")
    assert entries["MONGODB_DATABASE"] == "realtime"
    assert len(entries["JWT_SECRET"]) >= 32
    assert entries["GATEWAY_WS_URL"] == entries["GATEWAY_URL"].replace("http:", "ws:") + "/v1/live"
    assert stat.S_IMODE((system.directory / "run.env").stat().st_mode) == 0o600


def test_token_uses_secret_of_running_system(system: LocalSystem) -> None:
    answer = run_local("token", LOCAL_DIR=str(system.directory), TOKEN_USER="user_456", TOKEN_FIRST="John")
    claims = jwt.decode(answer.stdout.strip(), system.entries()["JWT_SECRET"], algorithms=["HS256"])
    assert (claims["sub"], claims["firstName"]) == ("user_456", "John")
    assert answer.stdout.count("\n") == 1


def test_second_run_is_refused_and_names_first(system: LocalSystem) -> None:
    answer = run_local("run", LOCAL_DIR=str(system.directory), GATEWAY_PORT="0")
    pid = system.process.pid
    assert answer.returncode == 2
    assert answer.stderr.splitlines() == [
        f"already running as process {pid}: stop it with Ctrl-C in its terminal, or with `kill {pid}`"
    ]


def test_occupied_requested_port_prints_one_line_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run_local("run", LOCAL_DIR=str(tmp_path), GATEWAY_PORT=str(port))
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert str(port) in answer.stderr
    assert "GATEWAY_PORT" in answer.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}


def test_occupied_default_port_falls_back_to_another(infrastructure: Infrastructure, tmp_path: Path) -> None:
    with socket.socket() as holder:
        with suppress(OSError):  # already in use
            holder.bind(("127.0.0.1", 8080))
            holder.listen()
        with LocalSystem(tmp_path, settings_on(infrastructure) | NO_SERVICES | {"GATEWAY_PORT": ""}) as system:
            url = system.entries()["GATEWAY_URL"]
            assert not url.endswith(":8080")
            said = f"port 8080 is in use: the gateways listen on {url.rpartition(':')[2]}"
            block_until(lambda: said in (tmp_path / "supervisor.out").read_text())


def test_interrupt_stops_run_started_by_script(infrastructure: Infrastructure, tmp_path: Path) -> None:
    """A shell without job control starts background jobs with interrupts ignored."""
    system = LocalSystem(tmp_path, settings_on(infrastructure) | NO_SERVICES)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        system.start()
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        system.process.signal(signal.SIGINT)
        assert system.process.wait(30) == 0
    finally:
        system.stop()


def test_invalid_settings_are_named_and_nothing_starts(tmp_path: Path) -> None:
    answer = run_local("run", LOCAL_DIR=str(tmp_path), GATEWAYS="two", NOTIFIERS="99")
    assert answer.returncode == 2
    assert [line.split("=")[0] for line in answer.stderr.splitlines()] == ["GATEWAYS", "NOTIFIERS"]


@pytest.mark.parametrize("name", ["BROKER", "DATABASE", "EPMD"])
def test_killed_server_restarts_on_its_port_and_updates_run_file(system: LocalSystem, name: str) -> None:
    before = system.entries()
    system.kill(name)
    block_until(lambda: system.entries()[f"{name}_PID"] != before[f"{name}_PID"], 30.0)
    block_until(lambda: accepts_logins(amqp_port(system)), 60.0)
    after = system.entries()
    assert {key for key in before if before[key] != after[key]} == {f"{name}_PID"}


def test_killed_supervisor_leaves_nothing_and_next_run_keeps_ports_and_secret(tmp_path: Path) -> None:
    system = LocalSystem(tmp_path, NO_SERVICES)
    with system:
        before = system.entries()
        system.process.signal(signal.SIGKILL)
        system.process.wait(10.0)
        block_until(lambda: marked_pids(str(tmp_path)) == [])
    with system:
        after = system.entries()
        assert {key: after[key] for key in ("AMQP_URL", "MONGODB_URI", "JWT_SECRET")} == {
            key: before[key] for key in ("AMQP_URL", "MONGODB_URI", "JWT_SECRET")
        }
    assert not (tmp_path / "run.env").exists()
    assert marked_pids(str(tmp_path)) == []
    assert system.process.wait(1.0) == 0
    assert "stopped" in system.process.last_lines()
