"""A process whose service fails or hangs ends in bounded time, even if its tasks swallow their cancellation."""

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared.process.lifecycle import END_TIMEOUT_S, EXIT_FAILED, FAIL_TIMEOUT_S

SLACK_S = 5.0  # a slow, shared machine
DRAIN_TIMEOUT_S = 0.5

PROGRAM = """
import asyncio, sys
from contextlib import AsyncExitStack
from shared.bus.bus import Bus
from shared.process import lifecycle
from shared.process.settings import Settings

async def deaf(begun):
    # The behaviour of a library that takes a cancellation for the end of one call.
    begun.set()
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def fail(when):
    await when.wait()
    raise RuntimeError("injected")

async def serve(settings, node_id, stop):
{serve}

lifecycle.run("test", Settings, serve)
"""


@asynccontextmanager
async def program(serve: str, amqp_url: str = "amqp://127.0.0.1:1/") -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process whose service has this body; it prints a line once the interleaving is reached."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM.format(serve=textwrap.indent(textwrap.dedent(serve), "    ")),
        env={**os.environ, "AMQP_URL": amqp_url, "DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S), "LOG_LEVEL": "warning"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"reached\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def code_within(process: asyncio.subprocess.Process, seconds: float) -> int:
    """Return the exit code. Raises TimeoutError if the process lives for longer."""
    return await asyncio.wait_for(process.wait(), seconds + SLACK_S)


DEAF_SIBLING = """
begun = asyncio.Event()
async with asyncio.TaskGroup() as tasks:
    tasks.create_task(deaf(begun))
    tasks.create_task(fail(begun))
    try:
        with lifecycle.stopping_on_failure(stop):
            await stop.wait()
    finally:
        print("reached", flush=True)
"""

DEAF_IN_AN_OUTER_CONTEXT = """
async with asyncio.TaskGroup() as outer:
    begun = asyncio.Event()
    outer.create_task(deaf(begun))
    await begun.wait()
    with lifecycle.stopping_on_failure(stop):
        print("reached", flush=True)
        raise RuntimeError("injected")
"""


@pytest.mark.parametrize("serve", [DEAF_SIBLING, DEAF_IN_AN_OUTER_CONTEXT], ids=["sibling", "outer"])
async def test_failure_ends_process_despite_swallowed_cancellation(serve: str) -> None:
    async with program(serve) as process:
        assert await code_within(process, FAIL_TIMEOUT_S + END_TIMEOUT_S) == EXIT_FAILED


async def test_failure_while_bus_connects_ends_process() -> None:
    """The broker accepts the connection and says nothing, so that the cancellation meets a client that connects."""
    connected = asyncio.Event()
    accepted: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        accepted.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    serve = """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Bus(settings.amqp_url, node_id))
        with lifecycle.stopping_on_failure(stop):
            print("reached", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            raise RuntimeError("injected")
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM.format(serve=textwrap.indent(textwrap.dedent(serve), "    ")),
            env={**os.environ, "AMQP_URL": f"amqp://127.0.0.1:{port}/", "LOG_LEVEL": "error"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        await asyncio.wait_for(connected.wait(), 20)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        assert await code_within(process, FAIL_TIMEOUT_S + END_TIMEOUT_S) == EXIT_FAILED
    finally:
        if process.returncode is None:
            process.kill()
        for writer in accepted:
            writer.close()
        server.close()


async def test_sigterm_ends_failed_process_at_once() -> None:
    async with program(DEAF_SIBLING) as process:
        process.send_signal(signal.SIGTERM)
        assert await code_within(process, END_TIMEOUT_S) == EXIT_FAILED
        assert process.stdout is not None
        assert b"stopped_at_once" in await process.stdout.read()


async def test_sigterm_ends_process_with_task_that_ignores_cancellation() -> None:
    serve = """
    async with asyncio.TaskGroup() as tasks:
        begun = asyncio.Event()
        task = tasks.create_task(deaf(begun))
        await begun.wait()
        print("reached", flush=True)
        await stop.wait()
        task.cancel()
    """
    async with program(serve) as process:
        process.send_signal(signal.SIGTERM)
        assert await code_within(process, DRAIN_TIMEOUT_S + END_TIMEOUT_S) == EXIT_FAILED


async def test_ended_service_ends_process_despite_stray_task() -> None:
    serve = """
    begun = asyncio.Event()
    serve.stray = asyncio.create_task(deaf(begun))
    await begun.wait()
    print("reached", flush=True)
    """
    async with program(serve) as process:
        assert await code_within(process, END_TIMEOUT_S) == 0


async def test_ended_service_ends_process_despite_thread() -> None:
    serve = """
    import threading
    serve.thread = asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    print("reached", flush=True)
    """
    async with program(serve) as process:
        assert await code_within(process, END_TIMEOUT_S) == 0
