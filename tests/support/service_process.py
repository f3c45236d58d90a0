"""`python -m <service>` as a separate process that a test can kill."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from tests.support.limits import HIGH_LIMITS
from tests.support.services import free_port, wait_ready


class Process:
    """One replica of a service. It keeps its settings over restarts."""

    def __init__(self, service: str, environment: Mapping[str, str]) -> None:
        self._service = service
        self.admin_port = free_port()
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self._environment = {**os.environ, **HIGH_LIMITS, **environment, "ADMIN_PORT": str(self.admin_port)}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_started(self) -> bool:
        """Return whether the process was ever started."""
        return self._process is not None

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; None while the process runs."""
        assert self._process is not None
        return self._process.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal. No effect if the process has ended."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def start(self, *, until_ready: bool = True) -> None:
        """Start and return once ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._service, env=self._environment, stdout=asyncio.subprocess.DEVNULL
        )
        if until_ready:
            await self.ready()

    async def ready(self) -> None:
        """Return once ready."""
        await wait_ready(self.admin_port)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    async def restart_killed(self) -> None:
        """Kill with SIGKILL and start again."""
        await self.end(signal.SIGKILL)
        await self.start()


@asynccontextmanager
async def service_processes(service: str, *environments: Mapping[str, str]) -> AsyncIterator[list[Process]]:
    """Yield replicas that start side by side and end with the block. They may not be ready yet."""
    processes = [Process(service, environment) for environment in environments]
    try:
        for process in processes:
            await process.start(until_ready=False)
        yield processes
    finally:
        for process in processes:
            await process.end(signal.SIGKILL)
