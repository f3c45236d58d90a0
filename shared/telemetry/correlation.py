"""Which request a log line belongs to: one id from the gateway through the broker to the worker and back.

A command is known by its own id (that of a message is the message's). What a REST call asks carries the call's id on
top, which is the `X-Request-Id` of the answer. `shared.telemetry.logs` adds
it to every line that is written within `request`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from shared.ids import Prefix, new_id

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def current() -> str | None:
    """The request that is worked on here; None outside of one."""
    return _current.get()


def choose(given: str | None) -> str:
    """The id that a client has chosen, if it is one that a log and a header can carry; else a new one."""
    return given if given is not None and _WELL_FORMED.fullmatch(given) else new_id(Prefix.REQUEST)


@contextmanager
def request(request_id: str) -> Iterator[None]:
    """Work on a request, in this task and those that it starts."""
    token = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(token)
