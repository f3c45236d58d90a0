"""A server as a child process, started, awaited and stopped without an event loop."""

import atexit
import functools
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from deploy.local.command import CommandLine
from deploy.local.leftovers import MARK_VARIABLE, start_guard

POLL_INTERVAL_S = 0.05
QUOTED_LINES = 20


class ServerProcess:
    """A server whose output goes to a file. It never outlives the test process, even if that is killed."""

    def __init__(self, command: CommandLine, output: Path) -> None:
        self._command = command
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id of the server, which is also its process group."""
        if self._process is None:
            raise RuntimeError(f"{self._command.arguments[0]} was never started")
        return self._process.pid

    def is_running(self) -> bool:
        """Return whether the server was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server without waiting until it is ready."""
        if self.is_running():
            raise RuntimeError(f"{self._command.arguments[0]} runs already")
        environment = {**self._command.environment, MARK_VARIABLE: _guarded_mark()}
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                self._command.arguments,
                env=environment,
                cwd=self._command.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Return once `condition` holds. Raises with the end of the server's output if it ends or the time is over."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if not self.is_running():
                raise RuntimeError(f"{self._command.arguments} has ended:\n{self.last_lines()}")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self._command.arguments} is not ready:\n{self.last_lines()}")
            time.sleep(POLL_INTERVAL_S)

    def wait(self, timeout_s: float) -> int:
        """Return the exit code once the server has ended by itself."""
        if self._process is None:
            raise RuntimeError(f"{self._command.arguments[0]} was never started")
        return self._process.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server only, not to its group."""
        os.kill(self.pid, number)

    def stop(self, timeout_s: float) -> None:
        """Stop the server with SIGTERM, or SIGKILL after `timeout_s`. No effect if it has ended."""
        if self._process is None or not self.is_running():
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the server and its process group."""
        if self._process is None or not self.is_running():
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def last_lines(self) -> str:
        """Return the end of the server's output."""
        return "\n".join(self._output.read_text(errors="replace").splitlines()[-QUOTED_LINES:])


@functools.cache
def _guarded_mark() -> str:
    """Return the mark of this test process and start its guard."""
    mark = f"tests {os.getpid()} {secrets.token_hex(8)}"
    guard = start_guard(mark)
    atexit.register(guard.communicate)
    return mark
