"""The console: lines of many programs on one output."""

import io
import os
import threading

from deploy.local.console import Console
from tests.support.waiting import block_until


class StuckOutput(io.BytesIO):
    """An output that blocks until released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, line: object, /) -> int:
        self.released.wait(10.0)
        return super().write(line)  # type: ignore[arg-type]


def test_prefixes_are_aligned() -> None:
    output = io.BytesIO()
    console = Console(["db", "gateway-1"], output, coloured=False)
    console.show("db", "up")
    console.show("gateway-1", "up")
    console.say("ready")
    console.close()
    assert output.getvalue().decode().splitlines() == ["db        | up", "gateway-1 | up", "ready"]


def test_only_prefix_is_coloured() -> None:
    output = io.BytesIO()
    console = Console(["db"], output, coloured=True)
    console.show("db", "up")
    console.close()
    assert output.getvalue() == b"\x1b[36mdb | \x1b[0mup\n"


def test_blocked_output_drops_and_counts_lines() -> None:
    output = StuckOutput()
    console = Console(["db"], output, coloured=False)
    for _ in range(10_100):
        console.say("line")
    output.released.set()
    block_until(lambda: b"line" in output.getvalue())
    console.say("last")
    console.close()
    lines = output.getvalue().decode().splitlines()
    assert lines[-1] == "last"
    assert "lines dropped" in lines[-2]


def test_closed_output_is_not_an_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as output:
        console = Console(["db"], output, coloured=False)
        for _ in range(10):
            console.show("db", "up")
        console.close()
