"""Programs for Node, whose output of one JSON object per line is read as it arrives."""

import asyncio
import functools
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 30.0

OPTIONS = ("--no-warnings", "--experimental-websocket")

Printed = dict[str, Any]


@functools.cache
def _found() -> tuple[str | None, str]:
    path = shutil.which("node")
    if path is None:
        return None, "node is not on the PATH"
    probe = [path, *OPTIONS, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
    if subprocess.run(probe, capture_output=True, timeout=TIMEOUT_S).returncode:
        return None, "this node has no WebSocket built in"
    return path, ""


def node() -> str:
    """Return a Node with a built-in WebSocket, or skip the test."""
    path, reason = _found()
    if path is None:
        pytest.skip(reason)
    return path


class NodeProgram:
    """A running program. `printed` holds every JSON object, `noise` every other line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.printed: list[Printed] = []
        self.noise: list[str] = []

    async def read_until(self, holds: Callable[[list[Printed]], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Read output until `holds(printed)`. Fails if the program ends before."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                while not holds(self.printed):
                    line = await self._process.stdout.readline()
                    assert line, f"the program ended: {self.noise[-20:]}; it had printed {self.printed[-20:]}"
                    self._take(line)
        except TimeoutError:
            raise TimeoutError(f"it has printed {self.printed[-20:]} and {self.noise[-20:]}") from None

    async def read_types(self, type_: str, count: int = 1) -> list[Any]:
        """Read output until there are `count` events of a type and return their data."""
        await self.read_until(lambda printed: sum(one["type"] == type_ for one in printed) >= count)
        return self.data(type_)

    def data(self, type_: str) -> list[Any]:
        """Return the data of all objects of a type so far."""
        return [one["data"] for one in self.printed if one["type"] == type_]

    async def tell(self, line: str) -> None:
        """Write a line to its input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def exit_code(self) -> int:
        """Wait until it exits, reading all output until then."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            async for line in self._process.stdout:
                self._take(line)
            return await self._process.wait()

    def _take(self, line: bytes) -> None:
        if line.startswith(b'{"type":'):
            self.printed.append(json.loads(line))
        else:
            self.noise.append(line.decode(errors="replace").rstrip())


@asynccontextmanager
async def node_program(path: Path, *arguments: str, **environment: str) -> AsyncIterator[NodeProgram]:
    """Run a module under Node with this environment for the duration of the block."""
    process = await asyncio.create_subprocess_exec(
        *(node(), *OPTIONS, str(path), *arguments),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1024 * 1024,
    )
    try:
        yield NodeProgram(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
