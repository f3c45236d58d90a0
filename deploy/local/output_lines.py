"""Non-blocking, line-wise reading of a child's output in the event loop."""

import asyncio
import os
from collections.abc import Callable

_READ_BYTES = 65_536
_LONGEST_LINE_BYTES = 65_536


class OutputLines:
    """A pipe: children write to `writer`, complete lines go to `on_line`. A line is cut at 64 KB."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def close_writer(self) -> None:
        """Close the parent's writing end after the child has inherited it."""
        os.close(self.writer)

    def close(self) -> None:
        """Read what the pipe still holds and stop listening, even if a grandchild may still write."""
        if self._reader < 0:
            return
        while self._read():
            pass
        self._finish()

    def _read(self) -> bool:
        """Read once and return True if there was anything."""
        if self._reader < 0:
            return False
        try:
            received = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return False
        if not received:
            self._finish()
            return False
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > _LONGEST_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._on_line(line.decode(errors="replace").rstrip("\r"))
        return True

    def _finish(self) -> None:
        if self._reader < 0:
            return
        asyncio.get_running_loop().remove_reader(self._reader)
        os.close(self._reader)
        self._reader = -1
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))
            self._rest = b""
