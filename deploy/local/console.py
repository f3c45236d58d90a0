"""The output of all programs on one standard output, each line prefixed with its program's name."""

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Collection
from typing import Protocol

_QUEUED_LINES = 10_000
_CLOSE_TIMEOUT_S = 2.0
_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Output(Protocol):
    """An unbuffered byte sink, like a raw file."""

    def write(self, text: memoryview, /) -> int | None:
        """Write some or all of `text` and return the number of bytes, or None if it would block."""


class Console:
    """Writes from its own thread, so that a blocked terminal (Ctrl-S, a pager) blocks nothing else.

    Buffers 10,000 lines. Lines beyond that are dropped and counted. Once the reader has gone, all output is dropped.
    """

    def __init__(self, names: Collection[str], output: Output, coloured: bool) -> None:
        self._output = output
        self._prefixes = _prefixes(names, coloured)
        self._lines: queue.Queue[bytes | None] = queue.Queue(_QUEUED_LINES)
        self._dropped = 0
        self._writer = threading.Thread(target=self._write, name="console", daemon=True)
        self._writer.start()

    def show(self, name: str, line: str) -> None:
        """Write one line with the prefix of `name`. Never blocks."""
        self._put(f"{self._prefixes[name]}{line}\n")

    def say(self, text: str) -> None:
        """Write a message of the supervisor, without a prefix. Never blocks."""
        self._put(f"{text}\n")

    def close(self) -> None:
        """Write the buffered lines, for at most 2 s."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_CLOSE_TIMEOUT_S)
        self._writer.join(_CLOSE_TIMEOUT_S)

    def _put(self, text: str) -> None:
        try:
            if self._dropped:
                self._lines.put_nowait(f"… {self._dropped} lines dropped: the output was not read\n".encode())
                self._dropped = 0
            self._lines.put_nowait(text.encode(errors="replace"))
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        reader_is_there = True
        while (line := self._lines.get()) is not None:
            try:
                rest = memoryview(line if reader_is_there else b"")
                while rest:
                    rest = rest[self._output.write(rest) or 0 :]
            except OSError:
                reader_is_there = False


def standard_console(names: Collection[str], environment_has_no_color: bool) -> Console:
    """Return the console on this process's standard output, coloured if it is a terminal."""
    os.set_blocking(sys.stdout.fileno(), True)  # an earlier program may have left the terminal non-blocking
    output = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115 - for the life of the process
    return Console(names, output, sys.stdout.isatty() and not environment_has_no_color)


def _prefixes(names: Collection[str], coloured: bool) -> dict[str, str]:
    width = max(map(len, names), default=0)
    prefixes = {}
    for index, name in enumerate(names):
        prefix = f"{name:<{width}} | "
        prefixes[name] = f"\x1b[{_COLOURS[index % len(_COLOURS)]}m{prefix}\x1b[0m" if coloured else prefix
    return prefixes
