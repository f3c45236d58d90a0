"""The supervisor with small stand-in programs, which are real processes."""

import asyncio
import contextlib
import io
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy.local.command import SYSTEM_PATH, CommandLine
from deploy.local.console import Console
from deploy.local.leftovers import kill_marked, marked_pids
from deploy.local.program import Program, Rank
from deploy.local.supervisor import StartFailure, Supervisor
from tests.support.waiting import until

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
SLEEPER_WITH_CHILD = (
    "import subprocess, time;"
    "subprocess.Popen(['sleep', '600'], start_new_session=True);"
    "print('up', flush=True); time.sleep(600)"
)
POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')));" + SLEEPER
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEPER


class Run:
    """A running supervisor and its observable state."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(8)
        self.output = io.BytesIO()
        self.pids: dict[str, list[int]] = {}
        self.ready = asyncio.Event()
        self.supervisor: Supervisor | None = None

    def note_start(self, name: str, pid: int) -> None:
        self.pids.setdefault(name, []).append(pid)

    async def run(self, *stages: list[Program], start_timeout_s: float = 10.0) -> None:
        names = [program.name for stage in stages for program in stage]
        console = Console(names, self.output, coloured=False)
        self.supervisor = Supervisor(stages, self.mark, console, self.note_start)
        try:
            await self.supervisor.run(start_timeout_s, self.ready.set)
        finally:
            console.close()

    @contextlib.asynccontextmanager
    async def running(self, *stages: list[Program]) -> AsyncIterator[Supervisor]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.run(*stages))
            await asyncio.wait_for(self.ready.wait(), 10.0)
            assert self.supervisor is not None
            yield self.supervisor
            self.supervisor.interrupt()

    def lines(self) -> list[str]:
        return self.output.getvalue().decode().splitlines()


@pytest.fixture
def run() -> Run:
    return Run()


def program(
    name: str,
    code: str = SLEEPER,
    rank: Rank = Rank.SERVICE,
    why_not_ready: Callable[[], str | None] = lambda: None,
    stop_timeout_s: float = 10.0,
) -> Program:
    command = CommandLine((sys.executable, "-c", code), {"PATH": SYSTEM_PATH}, Path("/"))
    return Program(name, rank, command, why_not_ready, stop_timeout_s)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_killed_program_restarts_with_new_process_id(run: Run) -> None:
    async with run.running([program("chat")]):
        os.kill(run.pids["chat"][0], signal.SIGKILL)
        await until(lambda: len(run.pids["chat"]) == 2)
        assert is_alive(run.pids["chat"][1])
    assert any("ended by signal 9" in line and "restarting in 0.2 s" in line for line in run.lines())


async def test_output_is_prefixed_with_program_name(run: Run) -> None:
    async with run.running([program("chat"), program("gateway", "print('no newline', end='');" + SLEEPER)]):
        await until(lambda: len(run.lines()) == 2)
    assert set(run.lines()) == {"chat    | up", "gateway | no newlineup"}


async def test_endless_line_is_cut_and_blocks_nothing(run: Run) -> None:
    endless = "import sys; sys.stdout.write('x' * 1_000_000); sys.stdout.flush();" + SLEEPER
    async with run.running([program("chat", endless)]):
        await until(lambda: any(line.endswith("up") for line in run.lines()))
    assert max(map(len, run.lines())) < 200_000


async def test_stages_start_in_order(run: Run, tmp_path: Path) -> None:
    up = tmp_path / "up"
    broker = program(
        "broker", f"open({str(up)!r}, 'x');" + SLEEPER, why_not_ready=lambda: None if up.exists() else "no"
    )
    looking = f"import os; print(os.path.exists({str(up)!r}), flush=True);" + SLEEPER
    async with run.running([broker], [program("chat", looking)]):
        await until(lambda: "chat   | True" in run.lines())


async def test_stop_follows_ranks_and_leaves_nothing(run: Run) -> None:
    stages = [[program(rank.name, POLITE, rank)] for rank in Rank]
    async with run.running(*stages):
        await until(lambda: len(run.lines()) == len(Rank))
    farewells = [line.split()[0] for line in run.lines() if line.endswith("bye")]
    assert farewells == ["GATEWAY", "SERVICE", "DATABASE", "BROKER", "EPMD"]
    assert marked_pids(run.mark) == []


async def test_program_ignoring_sigterm_is_killed_after_timeout(run: Run) -> None:
    async with run.running([program("chat", STUBBORN, stop_timeout_s=0.2)]):
        await until(lambda: len(run.lines()) == 1)
    assert not is_alive(run.pids["chat"][0])
    assert any("killed" in line for line in run.lines())


async def test_second_interrupt_kills_at_once(run: Run) -> None:
    async with run.running([program("chat", STUBBORN, stop_timeout_s=600.0)]) as supervisor:
        await until(lambda: len(run.lines()) == 1)
        supervisor.interrupt()
    assert not is_alive(run.pids["chat"][0])


async def test_stop_during_backoff_starts_nothing(run: Run) -> None:
    async with run.running([program("chat", "raise SystemExit(3)")]):
        await until(lambda: any("restarting in 0.4 s" in line for line in run.lines()))
        starts = len(run.pids["chat"])
    assert len(run.pids["chat"]) == starts


async def test_interrupt_during_start_stops_started_programs(run: Run) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run.run([program("broker", why_not_ready=lambda: "never")], [program("chat")]))
        await until(lambda: "broker" in run.pids)
        assert run.supervisor is not None
        run.supervisor.interrupt()
    assert not run.ready.is_set()
    assert "chat" not in run.pids
    assert not is_alive(run.pids["broker"][0])


async def test_program_not_ready_in_time_is_named_with_reason(run: Run) -> None:
    stage = [program("chat"), program("gateway", why_not_ready=lambda: "503 broker: connecting")]
    with pytest.raises(StartFailure, match=r"gateway: not ready after 1 s: 503 broker: connecting\n    up") as caught:
        await run.run(stage, start_timeout_s=1.0)
    assert "chat" not in str(caught.value)
    assert marked_pids(run.mark) == []


async def test_repeatedly_failing_program_ends_start_and_is_quoted(run: Run) -> None:
    failing = program("chat", "print('GATEWAY_PORT is wrong'); raise SystemExit(2)", why_not_ready=lambda: "no answer")
    with pytest.raises(StartFailure, match=r"(?s)chat: ended 5 times before it was ready.*GATEWAY_PORT is wrong"):
        await run.run([failing], start_timeout_s=60.0)
    assert len(run.pids["chat"]) == 5


async def test_missing_program_ends_start(run: Run) -> None:
    missing = Program("db", Rank.DATABASE, CommandLine(("/nonexistent/db",), {}, Path("/")), lambda: "no answer", 1.0)
    with pytest.raises(StartFailure, match="db: ended 5 times"):
        await run.run([missing], start_timeout_s=60.0)
    assert any("cannot be started" in line for line in run.lines())


async def test_escaped_process_is_found_by_mark(run: Run) -> None:
    async with run.running([program("chat", SLEEPER_WITH_CHILD)]):
        await until(lambda: len(run.lines()) == 1)
        assert len(marked_pids(run.mark)) == 2
    escaped = marked_pids(run.mark)
    assert len(escaped) == 1
    assert kill_marked(run.mark) == escaped
    assert marked_pids(run.mark) == []
