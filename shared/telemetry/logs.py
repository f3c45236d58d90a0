"""Structured logs: an event name and fields, as JSON lines or for a console. Never a token, never a user's text.

Exceptions and the messages of libraries are shown as `shared.telemetry.redaction` allows.
"""

import logging
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal

import structlog

from shared.telemetry import correlation, metrics
from shared.telemetry.log_throttle import LogThrottle
from shared.telemetry.redaction import redacted, traceback_of

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
        _describe_exception,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(sort_keys=True)
        if format_ == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
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
            foreign_pre_chain=[_describe_message, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _redacting(renderer)],
            use_get_message=False,
            pass_foreign_args=True,
        )
    )
    handler.addFilter(_count)
    handler.addFilter(_throttled(LogThrottle()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for noisy in ("aiormq", "aio_pika", "aiohttp.access", "pymongo", "asyncio"):
        logging.getLogger(noisy).setLevel(max(_LEVELS[level], logging.WARNING))
    for wordy in ("aiormq.connection", "aiohttp.websocket"):  # they log what each peer sends
        logging.getLogger(wordy).setLevel(logging.ERROR)
    logging.captureWarnings(True)
    sys.excepthook = _on_uncaught
    sys.unraisablehook = lambda uncaught: _on_uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)
    threading.excepthook = lambda uncaught: _on_uncaught(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)
    if format_ == "json":
        structlog.contextvars.bind_contextvars(service=service, node=node_id)


def _add_request(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if (request_id := correlation.current()) is not None:
        event.setdefault("request_id", request_id)
    return event


def _describe_exception(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    given = event.pop("exc_info", None)
    event.pop("stack_info", None)
    error = given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given is True else given
    if isinstance(error, BaseException):
        event["exception"] = traceback_of(error)
    return event


def _describe_message(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace a library's message by its template.

    A message without arguments is left out: it may already contain anything.
    """
    record: logging.LogRecord = event["_record"]
    template = event["event"] if event.pop("positional_args", None) else None
    event["event"] = "library_log"
    event["logger"] = record.name
    event["place"] = f"{record.module}:{record.lineno}"
    if template is not None:
        event["template"] = template
    if (left_out := getattr(record, "left_out", 0)) > 0:
        event["left_out"] = left_out
    return event


def _redacting(render: structlog.typing.Processor) -> structlog.typing.Processor:
    def rendered(logger: object, name: str, event: structlog.typing.EventDict) -> str:
        return redacted(str(render(logger, name, event)))

    return rendered


def _on_uncaught(_: type[BaseException], error: BaseException | None, __: TracebackType | None) -> None:
    """Log an exception that reached the interpreter, which would print its text."""
    if isinstance(error, Exception):
        get(__name__).error("uncaught", exc_info=error)


def _count(record: logging.LogRecord) -> bool:
    metrics.LOG_LINES.labels(record.levelname.lower()).inc()
    return True


def _throttled(throttle: LogThrottle) -> Callable[[logging.LogRecord], bool]:
    """Return a filter that passes one warning or error per event and second, with `left_out` for suppressed ones.

    Otherwise, during an outage, every command and retry would log a line.
    """

    def passes(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        event = record.msg if isinstance(record.msg, dict) else None
        left_out = throttle.check((record.name, record.msg if event is None else event["event"]))
        if left_out is None:
            return False
        if left_out and event is not None:
            event["left_out"] = left_out
        elif left_out:
            record.left_out = left_out
        return True

    return passes


def silence() -> None:
    """Drop all logs of this process, for programs that report errors themselves."""
    logging.disable()
    structlog.configure(processors=[_drop])


def _drop(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


def get(name: str) -> Logger:
    """Return a logger; `name` is the module's."""
    logger: Logger = structlog.stdlib.get_logger(name)
    return logger
