"""compose.yaml, started with Debian's servers and the database of `make run` in place of its images."""

import json
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

from deploy.bootstrap import say, stop
from deploy.container.engine import Engine
from tests.containers import compose_file, servers

PLUGIN_MODULE = "github.com/docker/compose/v2/cmd"
PLUGIN_VERSION = "v2.32.4"
BUILD_TIMEOUT_S = 2400.0
UP_TIMEOUT_S = 420.0
COMMAND_TIMEOUT_S = 120.0

_DATABASE = "mongodb://mongodb:27017/?directConnection=true"
_OVERRIDES = """\
x-database: &database {{MONGODB_URI: "{database}", MONGODB_URI_FILE: ""}}
# What a few clients resend after a fault would exceed the limit, and the pause would be the limit's.
x-limits: &limits {{RATE_LIMIT_MESSAGES_PER_MINUTE: "100000"}}
services:
  haproxy: {{ulimits: {{nofile: {files}}}}}
  gateway: {{ulimits: {{nofile: {files}}}, environment: *limits}}
  rabbitmq: {{ulimits: {{nofile: {files}}}}}
  chat_service: {{environment: {{<<: [*database, *limits]}}}}
  market_feed: {{environment: *database}}
  notifier: {{environment: *database}}
  mongodb:
    image: {image}
    command: !reset null
    healthcheck: {{test: [CMD, bash, -c, "</dev/tcp/127.0.0.1/27017"]}}
  mongodb-init: {{image: {image}, command: ["true"]}}
  prometheus: {{ports: !reset []}}
  grafana: {{profiles: [left-out]}}
"""


class Stack:
    """The Compose project on a private engine; `up` starts it, `down` removes it with its volumes."""

    def __init__(self, engine: Engine, directory: Path, port: int) -> None:
        self._engine = engine
        self.url = f"http://127.0.0.1:{port}"
        hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = hard_limit if 0 < hard_limit < 65_536 else 65_536  # not every machine lets root raise it
        self._override = directory / "override.yaml"
        self._override.write_text(_OVERRIDES.format(database=_DATABASE, files=files, image=servers.DATABASE))
        names = {name: image.partition("@")[0] for name, image in compose_file.images().items()}
        self._variables = {"PORT": str(port), "MAXCONN": "4000", **names}
        provide_plugin(engine)

    def up(self) -> None:
        """Start everything and return once it is healthy. Raises CalledProcessError."""
        started = self._compose(
            "up", "--detach", "--no-build", "--wait", "--wait-timeout", "300", timeout_s=UP_TIMEOUT_S
        )
        if started.returncode != 0:
            logs = self._compose("logs", "--tail", "15").stdout + self._compose("ps", "--all").stdout
            raise AssertionError(f"{started.stderr[-2000:]}\n{logs[-8000:]}")

    def down(self) -> None:
        """Stop and remove everything."""
        self._compose("down", "--volumes", "--timeout", "10", timeout_s=300.0)

    def run(self, *arguments: str) -> str:
        """Run a command of Compose and return its output. Raises CalledProcessError."""
        ended = self._compose(*arguments)
        ended.check_returncode()
        return ended.stdout.strip()

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what the engine knows of the running containers, by name, such as gateway-1."""
        found = json.loads(self._engine.run("inspect", *self.run("ps", "--quiet").split()))
        return {one["Name"].removeprefix("/realtime-"): one for one in found}

    def kill(self, name: str) -> None:
        """Kill the first process of a container from outside, as the kernel does: the engine restarts the container."""
        os.kill(int(self.containers()[name]["State"]["Pid"]), signal.SIGKILL)

    def control(self, word: str, name: str) -> None:
        """Run `restart`, `pause` or `unpause` on a container."""
        self._engine.run(word, f"realtime-{name}", timeout_s=COMMAND_TIMEOUT_S)

    def is_healthy(self, name: str) -> bool:
        """Return whether a container runs and its health check succeeds."""
        try:
            state = self.containers().get(name, {}).get("State", {})
        except subprocess.CalledProcessError:  # Compose fails while a container starts again
            return False
        return bool(state.get("Running")) and state.get("Health", {}).get("Status", "healthy") == "healthy"

    def _compose(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> "subprocess.CompletedProcess[str]":
        engine = self._engine._replace(environment={**self._engine.environment, **self._variables})
        files = ("--file", str(compose_file.DIRECTORY / "compose.yaml"), "--file", str(self._override))
        return engine.attempt("compose", *files, *arguments, timeout_s=timeout_s)


def provide_plugin(engine: Engine) -> None:
    """Build Docker Compose from its Go module into the private engine's directory, unless it is there."""
    assert engine.directory is not None
    plugin = engine.directory / "config" / "cli-plugins" / "docker-compose"
    if plugin.exists() or engine.attempt("compose", "version").returncode == 0:
        return
    say(f"building Docker Compose {PLUGIN_VERSION} from its Go module, ten minutes or more")
    module = engine.directory / "compose-module"
    module.mkdir(exist_ok=True)
    plugin.parent.mkdir(parents=True, exist_ok=True)
    (module / "go.mod").unlink(missing_ok=True)
    for command in (
        ["go", "mod", "init", "module"],
        ["go", "get", f"{PLUGIN_MODULE}@{PLUGIN_VERSION}"],
        ["go", "build", "-o", str(plugin), PLUGIN_MODULE],
    ):
        ended = subprocess.run(
            command, cwd=module, capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S
        )
        if ended.returncode != 0:
            stop(f"failed: {' '.join(command)}\n{ended.stderr[-2000:]}")
