"""The whole system as `make run` starts it: real processes, in the test's own directory.

    settings = {"GATEWAY_PORT": "0", "AMQP_URL": infrastructure.amqp_url, "MONGODB_URI": infrastructure.mongodb_uri}
    with LocalSystem(tmp_path, settings) as system:
        system.entries()["GATEWAY_URL"], system.entries()["GATEWAY_1_PID"]

Without AMQP_URL or MONGODB_URI it provisions its own servers. It inherits only PATH, HOME and similar variables.
"""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.local.command import CommandLine
from deploy.local.run_file import read_run_file
from deploy.local.settings import PROJECT
from shared.ids import Prefix, new_id
from tests.support.infrastructure import Infrastructure
from tests.support.limits import HIGH_LIMITS
from tests.support.server_process import ServerProcess
from tests.support.startable import Startable
from tests.support.tokens import SECRET

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 90.0

_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")


def settings_on(infrastructure: Infrastructure) -> dict[str, str]:
    """Return the settings of a system on these servers, with an empty database, that accepts tokens of `mint`."""
    return {
        "AMQP_URL": infrastructure.amqp_url,
        "MONGODB_URI": infrastructure.mongodb_uri,
        "MONGODB_DATABASE": new_id(Prefix.COMMAND),
        "JWT_SECRET": SECRET,
        "GATEWAY_HOST": "127.0.0.1",
    }


class LocalSystem(Startable):
    """`python -m deploy.local run` with `settings` as its environment. All calls block; stopping is orderly."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        beneath = {**passed_on, **HIGH_LIMITS, "GATEWAY_PORT": "0", "ADMIN_PORT": "0"}
        environment = {**beneath, **settings, "LOCAL_DIR": str(directory)}
        command = CommandLine((sys.executable, "-m", "deploy.local", "run"), environment, PROJECT)
        self.process = ServerProcess(command, directory / "supervisor.out")

    def start(self) -> None:
        """Start and return once everything is ready. Raises with the end of the output otherwise."""
        self.process.start()
        self.process.wait_until(self._is_ready, START_TIMEOUT_S)

    def entries(self) -> dict[str, str]:
        """Return the current content of `run.env`: addresses and process ids."""
        return read_run_file(self.directory)

    def kill(self, name: str) -> None:
        """Kill one process by its name in `run.env`: GATEWAY_1, CHAT_SERVICE, BROKER, SUPERVISOR, …"""
        os.kill(int(self.entries()[f"{name}_PID"]), signal.SIGKILL)

    def stop(self) -> None:
        """Stop everything cleanly."""
        self.process.stop(STOP_TIMEOUT_S)

    def _is_ready(self) -> bool:
        """Return whether `run.env` exists and belongs to this run; a killed run leaves its own behind."""
        return self.entries().get("SUPERVISOR_PID") == str(self.process.pid)
