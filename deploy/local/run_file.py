"""`run.env`: how other programs find and join the running system, as KEY=value lines."""

import os
from collections.abc import Mapping
from pathlib import Path

from deploy.local.plan import Plan
from deploy.local.ports import LOOPBACK
from deploy.local.private_file import write_private
from deploy.local.settings import LocalSettings
from shared.process.settings import read_env_file

RUN_FILE = "run.env"

_SHARED = ("AMQP_URL", "MONGODB_URI", "MONGODB_DATABASE", "JWT_SECRET")
_TOKEN_RULES = ("JWT_ISSUER", "JWT_AUDIENCE")


class RunFile:
    """Exists from `announce` to `remove` and follows every restart in between."""

    def __init__(self, settings: LocalSettings, plan: Plan, environment: Mapping[str, str]) -> None:
        self._path = settings.directory / RUN_FILE
        self._path.unlink(missing_ok=True)
        self._services = plan.admin_ports.keys()
        self._entries = _fixed_entries(settings, plan, environment)
        for name, port in plan.admin_ports.items():
            self._entries |= {
                f"{variable}_ADMIN_URL": f"http://{LOOPBACK}:{port}" for variable in self._variables(name)
            }
        self._announced = False

    def note_start(self, name: str, pid: int) -> None:
        """Record the process id of a started or restarted program."""
        self._entries |= {f"{variable}_PID": str(pid) for variable in self._variables(name)}
        if self._announced:
            self._write()

    def announce(self) -> None:
        """Write the file: the system is ready."""
        self._announced = True
        self._write()

    def remove(self) -> None:
        """Delete the file: the system has stopped."""
        self._path.unlink(missing_ok=True)

    def _variables(self, name: str) -> list[str]:
        """Return a program's variable names: GATEWAY_1, GATEWAY_2; a single one is CHAT_SERVICE and CHAT_SERVICE_1."""
        variable = name.upper().replace("-", "_")
        return [variable, f"{variable}_1"] if name in self._services and "-" not in name else [variable]

    def _write(self) -> None:
        write_private(self._path, "".join(f"{key}={value}\n" for key, value in self._entries.items()))


def read_run_file(directory: Path) -> dict[str, str]:
    """Return the entries of the system that runs in `directory`, or none."""
    return read_env_file(directory / RUN_FILE)


def gateway_authority(settings: LocalSettings) -> str:
    """Return host:port as a client on this machine writes it."""
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(settings.gateway_host, settings.gateway_host)  # noqa: S104
    return f"[{host}]:{settings.gateway_port}" if ":" in host else f"{host}:{settings.gateway_port}"


def _fixed_entries(settings: LocalSettings, plan: Plan, environment: Mapping[str, str]) -> dict[str, str]:
    authority = gateway_authority(settings)
    entries = {key: plan.shared_environment[key] for key in _SHARED if key in plan.shared_environment}
    entries |= {key: environment[key] for key in _TOKEN_RULES if environment.get(key)}
    entries |= {"GATEWAY_URL": f"http://{authority}", "GATEWAY_WS_URL": f"ws://{authority}/v1/live"}
    entries["SUPERVISOR_PID"] = str(os.getpid())
    return entries
