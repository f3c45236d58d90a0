"""The head of an ordinary upgrade request, read without aiohttp. Pure.

`parse` accepts only a plain, unambiguous form, and returns None for everything else: aiohttp then reads it, and
answers it or refuses it. So this module can accept nothing that aiohttp would refuse.
"""

import re
from collections.abc import Sequence

HEADERS_MAX = 40
HEAD_MAX_BYTES = 4096

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~](?:[ \t!-~]*[!-~])?)?)[ \t]*")
# A request with one of these has a body, is refused, needs an answer before the upgrade, or (`authorization`) may first
# have to wait for the issuer's keys.
_LEFT_TO_AIOHTTP = frozenset(
    {"authorization", "content-encoding", "content-length", "expect", "sec-websocket-key1", "transfer-encoding"}
)
# Headers that may be repeated. A request that repeats any other is left to aiohttp, which refuses some of them.
_REPEATABLE = frozenset(
    {"connection", "cookie", "sec-websocket-extensions", "sec-websocket-protocol", "x-forwarded-for"}
)
_REQUIRED = frozenset({"host", "upgrade", "sec-websocket-key", "sec-websocket-version"})


class UpgradeHead:
    """The headers of a request."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, list[str]]) -> None:
        self._values = values

    def getall(self, name: str, default: Sequence[str] = ()) -> Sequence[str]:
        """Return all values of a header, in order."""
        return self._values.get(name.lower(), default)


def parse(data: bytes, request_line: bytes) -> UpgradeHead | None:
    """Return the head if `data` is exactly one complete request head that begins with `request_line`; else None."""
    if len(data) > HEAD_MAX_BYTES or not data.startswith(request_line) or not data.endswith(b"\r\n\r\n"):
        return None
    lines = data[len(request_line) : -4].split(b"\r\n")
    if len(lines) > HEADERS_MAX:
        return None
    values: dict[str, list[str]] = {}
    for line in lines:
        if (found := _LINE.fullmatch(line)) is None:
            return None
        values.setdefault(found[1].decode().lower(), []).append(found[2].decode())
    repeated = {name for name, texts in values.items() if len(texts) > 1}
    if not _LEFT_TO_AIOHTTP.isdisjoint(values) or not repeated <= _REPEATABLE or not _REQUIRED.issubset(values):
        return None
    return UpgradeHead(values)
