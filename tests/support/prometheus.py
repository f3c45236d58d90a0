"""A Prometheus server with the configuration of deploy/, its targets replaced by those of a local system."""

import json
import os
import shutil
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from deploy.local.command import SYSTEM_PATH, CommandLine
from deploy.local.settings import PROJECT
from tests.support.server_process import ServerProcess
from tests.support.services import free_port

PROMETHEUS = shutil.which("prometheus", path=SYSTEM_PATH)
PROMTOOL = shutil.which("promtool", path=SYSTEM_PATH)
DIRECTORY = PROJECT / "deploy" / "prometheus"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
QUERY_TIMEOUT_S = 10.0

needs_prometheus = pytest.mark.skipif(
    PROMTOOL is None and os.geteuid() != 0, reason="prometheus is missing; to install it: sudo make tools"
)


def native_configuration(targets: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the deployed configuration with these targets (host:port) by job, without the other jobs."""
    configuration: dict[str, Any] = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text())
    configuration["rule_files"] = [str(DIRECTORY / name) for name in configuration["rule_files"]]
    configuration["scrape_configs"] = [job for job in configuration["scrape_configs"] if job["job_name"] in targets]
    for job in configuration["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": targets[job["job_name"]]}]
    return configuration


class Prometheus:
    """The server. A context manager starts and stops it."""

    def __init__(self, directory: Path, configuration: Mapping[str, Any]) -> None:
        file = directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(dict(configuration)))
        self.url = f"http://127.0.0.1:{free_port()}"
        arguments = (
            PROMETHEUS or "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        )
        self._process = ServerProcess(CommandLine(arguments, {}, directory), directory / "prometheus.out")

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an API answer. Raises OSError if there is none."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=QUERY_TIMEOUT_S) as response:
            return json.load(response)["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        """Return the current series of a query."""
        found = self.ask("query", query=text)
        assert found["resultType"] == "vector", text
        return list(found["result"])

    def rules(self) -> list[dict[str, Any]]:
        """Return all loaded rules with their health."""
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[dict[str, Any]]:
        """Return all targets with their health."""
        return list(self.ask("targets")["activeTargets"])

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=QUERY_TIMEOUT_S) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def __enter__(self) -> Self:
        self._process.start()
        try:
            self._process.wait_until(self._is_ready, START_TIMEOUT_S)
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop(STOP_TIMEOUT_S)
