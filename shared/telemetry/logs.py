"""Structured logs: an event name and fields, as JSON lines or for a console. Never a token, never a message text."""

import logging
import sys
from collections.abc import Callable
from typing import Literal

import structlog

from shared.telemetry import correlation, metrics
from shared.telemetry.log_throttle import LogThrottle

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Logger = structlog.stdlib.BoundLogger

details = False  # whether debug lines are logged; hot code checks it before it creates one


def configure(
    service: str, node_id: str, level: Literal["debug", "info", "warning", "error"], format_: Literal["json", "console"]
) -> None:
    """Send all logs of this process, including those of libraries, to standard output, with service and node."""
    global details
    details = level == "debug"
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if format_ == "json" else _keep,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_count)
    handler.addFilter(_throttled(LogThrottle()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for noisy in ("aiormq", "aio_pika", "aiohttp.access", "pymongo", "asyncio"):
        logging.getLogger(noisy).setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger("aiormq.connection").setLevel(logging.ERROR)
    if format_ == "json":
        structlog.contextvars.bind_contextvars(service=service, node=node_id)


def _add_request(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if (request_id := correlation.current()) is not None:
        event.setdefault("request_id", request_id)
    return event


def _count(record: logging.LogRecord) -> bool:
    metrics.LOG_LINES.labels(record.levelname.lower()).inc()
    return True


def _throttled(throttle: LogThrottle) -> Callable[[logging.LogRecord], bool]:
    """Return a filter that lets one warning or error of each event pass in a second, with `left_out`.

    While broker or database is away, every command and every retry would write one.
    """

    def passes(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        event = record.msg if isinstance(record.msg, dict) else None
        left_out = throttle.admit((record.name, record.msg if event is None else event["event"]))
        if left_out is None:
            return False
        if left_out and event is not None:
            event["left_out"] = left_out
        elif left_out:
            record.msg = f"{record.msg} ({left_out} more left out)"
        return True

    return passes


def silence() -> None:
    """Drop all logs of this process, for programs that report errors themselves."""
    logging.disable()
    structlog.configure(processors=[_drop])


def _drop(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


def _keep(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event


def get(name: str) -> Logger:
    """Return a logger; `name` is the module's."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger
