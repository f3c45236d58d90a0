"""The request id of a log line: one id from the gateway through the broker to the worker and back.

A command has its own id (the command that sends a message has the message's id). A command of a REST call carries the
call's id too, which is the `X-Request-Id` of the answer. `shared.telemetry.logs` adds the id to every line that is
logged within `request`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from shared.ids import Prefix, new_id

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def current() -> str | None:
    """Return the id of the current request, or None outside of one."""
    return _current.get()


def choose(given: str | None) -> str:
    """Return the client's id if it is safe in logs and headers, else a new one."""
    return given if given is not None and _WELL_FORMED.fullmatch(given) else new_id(Prefix.REQUEST)


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Set the request id for the block, and for tasks started in it."""
    token = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(token)
