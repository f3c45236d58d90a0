"""`python -m notifier` as a process of its own, to be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.services import free_port, wait_ready


class NotifierProcess:
    """One replica. It keeps its settings over restarts."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._admin_port = free_port()
        self._environment = {**os.environ, **environment, "ADMIN_PORT": str(self._admin_port)}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, and return once ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "notifier", env=self._environment, stdout=asyncio.subprocess.DEVNULL
        )
        await wait_ready(self._admin_port)

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    async def restart_killed(self) -> None:
        """End with SIGKILL and start again."""
        await self.end(signal.SIGKILL)
        await self.start()


@asynccontextmanager
async def notifier_processes(
    amqp_url: str, mongodb_uri: str, database: str, count: int = 1
) -> AsyncIterator[list[NotifierProcess]]:
    """Replicas that end with the block."""
    environment = {"AMQP_URL": amqp_url, "MONGODB_URI": mongodb_uri, "MONGODB_DATABASE": database}
    processes = [NotifierProcess(environment) for _ in range(count)]
    try:
        for process in processes:
            await process.start()
        yield processes
    finally:
        for process in processes:
            await process.end(signal.SIGKILL)
