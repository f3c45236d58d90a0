"""Containers of the private engine as tests use them."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

from deploy.container.engine import Engine

READY_TIMEOUT_S = 120.0
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")


class Container:
    """A running container on one network."""

    def __init__(self, engine: Engine, name: str, network: str) -> None:
        self._engine = engine
        self.name = name
        self._network = network

    @property
    def address(self) -> str:
        """Return its address on the network."""
        networks = self._inspect()["NetworkSettings"]["Networks"]
        return str(networks[self._network]["IPAddress"])

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; None while it runs."""
        state = self._inspect()["State"]
        return None if state["Running"] else int(state["ExitCode"])

    def answer(self, path: str) -> dict[str, Any]:
        """Return the answer of its admin server. Raises OSError without one, or with another status than 200."""
        with urllib.request.urlopen(f"http://{self.address}:9100{path}", timeout=3) as response:
            return dict(json.load(response))

    def wait_ready(self) -> None:
        """Return once `/readyz` reports ready. Raises AssertionError with the log otherwise."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline_s and self.exit_code is None:
            try:
                self.answer("/readyz")
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)  # poll interval of a condition with a deadline
        raise AssertionError(f"{self.name} is not ready: {self.log()}")

    def stop(self, grace_s: int) -> float:
        """Stop it as a scheduler does, and return the seconds that it took."""
        begun_s = time.monotonic()
        self._engine.run("stop", "--time", str(grace_s), self.name, timeout_s=grace_s + 60.0)
        return time.monotonic() - begun_s

    def log(self) -> str:
        """Return the end of its log."""
        ended = self._engine.attempt("logs", "--tail", "20", self.name)
        return ended.stdout + ended.stderr

    def _inspect(self) -> dict[str, Any]:
        (found,) = json.loads(self._engine.run("inspect", self.name))
        return dict(found)
