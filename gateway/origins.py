"""Origins of pages that may use the gateway (`ALLOWED_ORIGINS`), for sockets and REST. Pure.

An entry that no browser can send would silently lock every page out, so `origin_problems` reports it at start-up. The
form of an origin: RFC 6454, 6.2; default ports: https://url.spec.whatwg.org/#url-miscellaneous.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

ANY = "*"
OPAQUE = "null"  # the origin of a sandboxed page or a file
DEFAULT_PORTS = {"http": 80, "https": 443}


class OriginPolicy:
    """The origins that may use the gateway. Every origin is allowed if the list is empty or holds only `*`."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self.is_open = not allowed or tuple(allowed) == (ANY,)
        self._allowed = frozenset(allowed)

    def allows(self, origin: str) -> bool:
        """Return whether a page of this origin may use the gateway."""
        return self.is_open or origin in self._allowed


def origin_problems(allowed: Sequence[str]) -> list[str]:
    """Return the reason for each entry that no browser sends as an Origin header."""
    if tuple(allowed) == (ANY,):
        return []
    return [f"{text!r} {reason}" for text in allowed if (reason := _reason(text)) is not None]


def _reason(text: str) -> str | None:
    if text == OPAQUE:
        return None
    if "*" in text:
        return "is not an origin: * is allowed only as the only entry, and never within one"
    if not text.isascii() or text != text.lower():
        return "never matches: browsers send origins in lower case and ASCII"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "is not an origin: its port is not a number"
    if not parts.scheme or not parts.hostname:
        return "is not an origin: it must be like https://app.example"
    if text != f"{parts.scheme}://{parts.netloc}" or "@" in parts.netloc:
        return "never matches: an origin has no path, no slash at its end and no user"
    if port is not None and (port == DEFAULT_PORTS.get(parts.scheme) or not text.endswith(f":{port}")):
        return "never matches: browsers leave the default port and leading zeros out"
    return "never matches: its port is missing" if parts.netloc.endswith(":") else None
