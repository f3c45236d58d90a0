"""Redaction of exceptions and library messages in logs. Pure.

The text of an exception can quote its cause: the document of a failed insert, a URL with its password, a header. So a
log shows the types of a chain of exceptions and the code locations that they passed, without their texts, source lines
and variables. A library's message is shown as its template, without the arguments.

`redacted` is the last safety net, for fields that quote an error of this system: it hides tokens, and the user info and
the query of URLs.
"""

import re
from collections.abc import Iterator
from traceback import walk_tb

EXCEPTIONS_MAX = 10
FRAMES_MAX = 30
HIDDEN = "***"

_TOKEN = re.compile(r"\beyJ[\w-]*\.[\w-]*(?:\.[\w-]*)?")
_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/\"'<>]*@", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?\"'<>]*\?)[^\s\"'<>]+", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return the text without tokens and without the user info and query of URLs."""
    text = _TOKEN.sub(HIDDEN, text)
    if "://" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", _USER_INFO.sub(rf"\1{HIDDEN}@", text))
    return text


def traceback_of(error: BaseException) -> str:
    """Return the types of an exception and of its causes, first cause first, each with its code locations."""
    return "\n".join(line for each in reversed(list(_chain(error))) for line in _described(each))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, those of its group, and its causes. At most EXCEPTIONS_MAX."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < EXCEPTIONS_MAX:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
        cause = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        if cause is not None:
            waiting.append(cause)


def _described(error: BaseException) -> Iterator[str]:
    kind = type(error)
    yield f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    for frame, line in list(walk_tb(error.__traceback__))[-FRAMES_MAX:]:
        yield f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"
