"""Supervision of all programs: starts them by stage, keeps them running, stops them by rank."""

import asyncio
from collections.abc import Callable, Sequence

from deploy.local.console import Console
from deploy.local.process import ManagedProcess
from deploy.local.program import Program

_POLL_INTERVAL_S = 0.1
_MAX_FAILURES = 5


class StartFailure(Exception):
    """The programs that did not become ready, the reasons, and the end of their output."""


class Supervisor:
    """Starts each stage once all programs of the previous stage are ready.

    `on_start` is called with a program's name and process id at every start and restart.
    """

    def __init__(
        self, stages: Sequence[Sequence[Program]], mark: str, console: Console, on_start: Callable[[str, int], None]
    ) -> None:
        self._stages = [[self._process(program, mark, console, on_start) for program in stage] for stage in stages]
        self._interrupted = asyncio.Event()

    async def run(self, start_timeout_s: float, on_ready: Callable[[], None]) -> None:
        """Start all programs, call `on_ready`, keep them running until interrupted, and stop them.

        Raises StartFailure after stopping everything if a stage is not ready within `start_timeout_s`.
        """
        async with asyncio.TaskGroup() as tasks:
            try:
                failure = await self._start(tasks, start_timeout_s)
                if failure is None and not self._interrupted.is_set():
                    on_ready()
                    await self._interrupted.wait()
            finally:
                await self._stop()
        if failure is not None:
            raise failure

    def interrupt(self) -> bool:
        """Request an orderly stop and return True; on a second call, kill everything and return False."""
        if not self._interrupted.is_set():
            self._interrupted.set()
            return True
        for process in self._processes():
            process.kill()
        return False

    async def _start(self, tasks: asyncio.TaskGroup, timeout_s: float) -> StartFailure | None:
        for stage in self._stages:
            for process in stage:
                tasks.create_task(process.keep())
            failure = await self._wait_until_ready(stage, timeout_s)
            if failure is not None or self._interrupted.is_set():
                return failure
        return None

    async def _wait_until_ready(self, stage: Sequence[ManagedProcess], timeout_s: float) -> StartFailure | None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while not self._interrupted.is_set():
            waiting = [process for process in stage if not process.was_ready]
            reasons = await asyncio.gather(*(asyncio.to_thread(process.program.why_not_ready) for process in waiting))
            missing = {process: reason for process, reason in zip(waiting, reasons, strict=True) if reason is not None}
            for process in waiting:
                process.was_ready = process not in missing
            if not missing:
                return None
            failing = {process: reason for process, reason in missing.items() if process.failures >= _MAX_FAILURES}
            if failing:
                return _failure(f"ended {_MAX_FAILURES} times before it was ready", failing)
            if loop.time() > deadline_s:
                return _failure(f"not ready after {timeout_s:.0f} s", missing)
            await asyncio.sleep(_POLL_INTERVAL_S)
        return None

    async def _stop(self) -> None:
        processes = self._processes()
        for process in processes:
            process.retire()
        for rank in sorted({process.program.rank for process in processes}, reverse=True):
            await asyncio.gather(*(process.stop() for process in processes if process.program.rank == rank))

    def _processes(self) -> list[ManagedProcess]:
        return [process for stage in self._stages for process in stage]

    @staticmethod
    def _process(program: Program, mark: str, console: Console, on_start: Callable[[str, int], None]) -> ManagedProcess:
        return ManagedProcess(program, mark, console, lambda pid: on_start(program.name, pid))


def _failure(what: str, reasons: dict[ManagedProcess, str]) -> StartFailure:
    lines = []
    for process, reason in reasons.items():
        lines.append(f"{process.program.name}: {what}: {reason}")
        lines += [f"    {line}" for line in process.last_lines()]
    return StartFailure("\n".join(lines))
