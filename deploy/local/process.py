"""Supervision of one program: starts it, shows its output, restarts it when it dies."""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable

from deploy.local.console import Console
from deploy.local.leftovers import MARK_VARIABLE
from deploy.local.output_lines import OutputLines
from deploy.local.program import Program
from shared.backoff import Backoff
from shared.waiting import is_set_within

_QUOTED_LINES = 15
_END_TIMEOUT_S = 5.0
_BACKOFF_FIRST_S = 0.2
_BACKOFF_MAX_S = 5.0
_STEADY_AFTER_S = 30.0  # after running this long, a program restarts with the first delay again


class ManagedProcess:
    """One program and its current process. `keep` is the task; `retire`, then `stop`, end it."""

    def __init__(self, program: Program, mark: str, console: Console, on_start: Callable[[int], None]) -> None:
        self.program = program
        self.was_ready = False
        self.failures = 0
        self._mark = mark
        self._console = console
        self._on_start = on_start
        self._last_lines: deque[str] = deque(maxlen=_QUOTED_LINES)
        self._process: asyncio.subprocess.Process | None = None
        self._retired = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    async def keep(self) -> None:
        """Run the program until retired. `failures` counts its exits before it was ever ready."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(_BACKOFF_FIRST_S, _BACKOFF_MAX_S)
        self._ended.clear()
        try:
            while not self._retired.is_set():
                started_s = loop.time()
                cause = await self._run_once()
                if self._retired.is_set():
                    return
                if loop.time() - started_s >= _STEADY_AFTER_S:
                    backoff.reset()
                delay_s = backoff.next_s()
                self._report(f"{cause}; restarting in {delay_s:.1f} s")
                await is_set_within(self._retired, delay_s)
        finally:
            self._ended.set()

    def retire(self) -> None:
        """Stop restarting the program."""
        self._retired.set()

    async def stop(self) -> None:
        """End the program with SIGTERM, and with SIGKILL if it outlives its stop timeout."""
        self.retire()
        self._signal(signal.SIGTERM)
        if not await is_set_within(self._ended, self.program.stop_timeout_s):
            self._report(f"still running {self.program.stop_timeout_s:.0f} s after SIGTERM; killed")
            self.kill()
            await is_set_within(self._ended, _END_TIMEOUT_S)

    def kill(self) -> None:
        """Kill the program and its process group."""
        self.retire()
        if self._process is not None and self._process.returncode is None:
            _kill_group(self._process.pid)

    def last_lines(self) -> list[str]:
        """Return the end of the program's output, including lines that the console does not show."""
        return list(self._last_lines)

    async def _run_once(self) -> str:
        """Run the program until it ends and return how it ended."""
        output = OutputLines(self._take_line)
        try:
            process = await self._spawn(output)
        except OSError as error:
            self.failures += 1
            output.close()
            return f"cannot be started: {error}"
        self._process = process
        self._on_start(process.pid)
        if self._retired.is_set():  # retired during the start
            self._signal(signal.SIGTERM)
        code = await process.wait()
        _kill_group(process.pid)
        output.close()
        if code >= 0 and not self.was_ready:
            self.failures += 1
        return f"exited with code {code}" if code >= 0 else f"ended by signal {-code} ({signal.strsignal(-code)})"

    async def _spawn(self, output: OutputLines) -> asyncio.subprocess.Process:
        command = self.program.command
        try:
            return await asyncio.create_subprocess_exec(
                *command.arguments,
                env={**command.environment, MARK_VARIABLE: self._mark},
                cwd=command.directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.writer,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # so that Ctrl-C reaches only the supervisor
            )
        finally:
            output.close_writer()

    def _take_line(self, line: str) -> None:
        self._last_lines.append(line)
        if self.program.shows(line):
            self._console.show(self.program.name, line)

    def _report(self, text: str) -> None:
        self._console.show(self.program.name, f"[supervisor] {text}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            # asyncio's send_signal may reap the child before its own watcher does.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
