"""Start and stop of a process: settings, logs, uvloop, signals, deadlines.

SIGTERM or SIGINT asks the service to stop; after `DRAIN_TIMEOUT_S` it is cancelled; a second signal exits at once.

A process that has failed must end. Structured concurrency alone does not guarantee that: a failed TaskGroup waits for
its other tasks, and a task never ends if a library swallows its cancellation (aiormq does, while it connects). Such a
process would still answer `/healthz` and ignore SIGTERM. So a failure sets `stop` where it is raised
(`stopping_on_failure`), and every wait for the end has a deadline, after which the process exits by force:

    running ──signal──▶ stopping ──returned──────────────────▶ exit 0
       │                   └──────DRAIN_TIMEOUT_S──▶ cancelled ─▶ returned or END_TIMEOUT_S ─▶ exit 1
       └──failure──▶ failed ──────FAIL_TIMEOUT_S───▶ cancelled ─▶ returned or END_TIMEOUT_S ─▶ exit 1
"""

import asyncio
import gc
import itertools
import os
import platform
import signal
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import uvloop

from shared.errors import DatabaseTooNew, SettingsInvalid
from shared.ids import Prefix, new_id
from shared.process.settings import Settings, load, revision
from shared.telemetry import logs, metrics, tracing
from shared.version import VERSION
from shared.waiting import until_next

log = logs.get(__name__)

S = TypeVar("S", bound=Settings)
Serve = Callable[[S, str, asyncio.Event], Awaitable[None]]

COLLECT_AFTER = (50_000, 20, 50)  # thresholds: new objects, young collections, middle collections
EXIT_FAILED = 1
EXIT_SETTINGS = 2
EXIT_DATABASE_TOO_NEW = 3
FAIL_TIMEOUT_S = 3.0  # from a failure to the cancellation: time to release leases and queues
END_TIMEOUT_S = 2.0  # from the cancellation, or from the end of the service, to the end of the process
TASKS_NAMED = 10  # tasks named in the log of a forced exit
LOOP_LAG_INTERVAL_S = 0.5
LOOP_LAGS_KEPT = 120
COUNT_TASKS_EVERY = 20  # lag samples per count of tasks: with 10,000 sockets counting takes milliseconds


def run(service: str, settings_type: type[S], serve: "Serve[S]") -> None:
    """Run `serve(settings, node_id, stop)` until it returns, and exit the process. The first signal sets `stop`."""
    try:
        settings = load(settings_type)
    except SettingsInvalid as invalid:
        for problem in invalid.problems:
            sys.stderr.write(f"{service}: wrong setting: {problem}\n")
        sys.exit(EXIT_SETTINGS)
    node_id = new_id(Prefix.NODE)
    logs.configure(service, node_id, settings.log_level, settings.log_format)
    if settings.otel_exporter_otlp_endpoint:
        try:
            tracing.export_to(settings.otel_exporter_otlp_endpoint, service, node_id)
        except ImportError:
            sys.stderr.write(f"{service}: wrong setting: OTEL_EXPORTER_OTLP_ENDPOINT: pip install '.[tracing]' first\n")
            sys.exit(EXIT_SETTINGS)
    metrics.BUILD.info(
        {"service": service, "version": VERSION, "revision": revision(), "python": platform.python_version()}
    )
    log.info("starting", version=VERSION, revision=revision())
    _tune_garbage_collector()
    code = uvloop.run(_supervise(settings, node_id, serve))
    tracing.turn_off()
    sys.exit(code)


def _tune_garbage_collector() -> None:
    """Make garbage collection rare, and exempt the objects that start-up created.

    With 10,000 sockets a full collection stops the process for a fifth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


async def _supervise(settings: S, node_id: str, serve: "Serve[S]") -> int:
    stop = asyncio.Event()
    signalled = False
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        nonlocal signalled
        if stop.is_set():
            log.warning("stopped_at_once", signal=signal.Signals(number).name)
            os._exit(EXIT_FAILED)
        log.info("stopping", signal=signal.Signals(number).name, deadline_s=settings.drain_timeout_s)
        signalled = True
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    lag = asyncio.create_task(_watch_loop())
    serving = asyncio.ensure_future(serve(settings, node_id, stop))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({serving}, timeout=settings.drain_timeout_s if signalled else FAIL_TIMEOUT_S)
        if not serving.done():
            log.warning("stop_deadline_passed")
            serving.cancel()
            await asyncio.wait({serving}, timeout=END_TIMEOUT_S)
        if not serving.done():
            _exit_by_force()
        await serving
    except asyncio.CancelledError:
        return _ending(EXIT_FAILED)
    except DatabaseTooNew as error:
        log.error("database_too_new", reason=str(error))
        return _ending(EXIT_DATABASE_TOO_NEW)
    except Exception:  # the process ends here; its supervisor restarts it
        log.exception("failed")
        return _ending(EXIT_FAILED)
    finally:
        stop.set()  # from here on one signal exits at once
        lag.cancel()
        stopping.cancel()
    log.info("stopped")
    return _ending(0)


def _exit_by_force() -> None:
    """Exit before the service has ended, because a task ignores its cancellation."""
    names = sorted(task.get_name() for task in asyncio.all_tasks() if task.cancelling())
    log.error("exit_forced", tasks=names[:TASKS_NAMED])
    os._exit(EXIT_FAILED)


def _ending(code: int) -> int:
    """Return the exit code, and exit with it after `END_TIMEOUT_S` even if something still runs.

    Without that, the event loop would wait for stray tasks, and the interpreter for threads, without a deadline.
    """
    last_resort = threading.Timer(END_TIMEOUT_S, os._exit, (code,))
    last_resort.daemon = True
    last_resort.start()
    return code


@contextmanager
def stopping_on_failure(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` when the block raises. Wrap the innermost block of a service.

    Outer contexts close later, and may wait for a task that ignores its cancellation. `stop` starts the deadline of the
    process before that.
    """
    try:
        yield
    except BaseException:
        stop.set()
        raise


async def _watch_loop() -> None:
    lags_s: deque[float] = deque(maxlen=LOOP_LAGS_KEPT)
    for number in itertools.count():
        if number % COUNT_TASKS_EVERY == 0:
            metrics.EVENT_LOOP_TASKS.set(len(asyncio.all_tasks()))
        lags_s.append(await until_next(LOOP_LAG_INTERVAL_S))
        metrics.EVENT_LOOP_LAG_SECONDS.observe(lags_s[-1])
        metrics.EVENT_LOOP_LAG_MAX_SECONDS.set(max(lags_s))


async def run_until(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Await `work`, or cancel it when `stop` is set first."""
    working = asyncio.ensure_future(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        for task in (working, stopping):
            task.cancel()
