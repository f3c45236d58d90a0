"""Structured logs: an event name and fields, as JSON lines or for a console. Never a token, never a message text."""

import logging
import sys
from typing import Literal

import structlog

from shared.telemetry import correlation, metrics

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
