"""The server's side of the opening handshake (RFC 6455, 4.2), and of permessage-deflate (RFC 7692, 7.1). Pure."""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from shared.errors import ErrorCode, Refusal

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_VERSIONS = frozenset({"13", "8", "7"})  # 7 and 8 are drafts with the same frames
_WINDOWS = {str(bits): bits for bits in range(9, zlib.MAX_WBITS + 1)}  # zlib supports no window of 8 bits
_BITS = frozenset(map(str, range(8, zlib.MAX_WBITS + 1)))
_VALUES = {  # "": no value (RFC 7692, 7.1); an offer with any other must be declined
    "server_no_context_takeover": frozenset({""}),
    "client_no_context_takeover": frozenset({""}),
    "server_max_window_bits": _BITS,
    "client_max_window_bits": _BITS | {""},
}


class Headers(Protocol):
    """The headers of a request; names are case-insensitive."""

    def getall(self, key: str, default: Sequence[str]) -> Sequence[str]:
        """Return all values of a header."""


class Deflate(NamedTuple):
    """The compression that was agreed on."""

    answer: str  # the value of Sec-WebSocket-Extensions
    server_window: int  # the largest window, in bits, that the server may use


class Handshake(NamedTuple):
    """An accepted handshake: the complete answer, and the compression."""

    answer: bytes
    deflate: Deflate | None


def shake_hands(headers: Headers, *, compression: bool, server: str) -> Handshake:
    """Accept the handshake of a GET request. Raises VALIDATION."""
    if _last(headers, "Upgrade").lower() != "websocket" or "upgrade" not in _tokens(headers, "Connection"):
        raise _refused("no upgrade to websocket is requested")
    if _last(headers, "Sec-WebSocket-Version") not in _VERSIONS:
        raise _refused("the version is not 13")
    deflate = negotiate(headers.getall("Sec-WebSocket-Extensions", ())) if compression else None
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: upgrade",
        f"Sec-WebSocket-Accept: {_accept(_last(headers, 'Sec-WebSocket-Key'))}",
        *([] if deflate is None else [f"Sec-WebSocket-Extensions: {deflate.answer}"]),
        f"Server: {server}",
    ]
    return Handshake("\r\n".join((*lines, "", "")).encode(), deflate)


def negotiate(offers: Iterable[str]) -> Deflate | None:
    """Accept the first acceptable offer of permessage-deflate.

    The server compresses every frame without context, so that one result suits every client, and says so. If the offer
    names `server_max_window_bits`, the answer repeats it (7.1.2.1).
    """
    for offer in ",".join(offers).split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() == "permessage-deflate" and (deflate := _accepted(parameters)) is not None:
            return deflate
    return None


def _accepted(parameters: Sequence[str]) -> Deflate | None:
    asked: dict[str, str] = {}
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        value = value.strip('"')
        if name in asked or value not in _VALUES.get(name, ()):
            return None
        asked[name] = value
    window = _window(asked)
    if window is None:
        return None
    named = [f"server_max_window_bits={window}"] if "server_max_window_bits" in asked else []
    return Deflate("; ".join(("permessage-deflate", *named, "server_no_context_takeover")), window)


def _window(asked: Mapping[str, str]) -> int | None:
    """Return the server's window; None if this server has no such window."""
    return _WINDOWS.get(asked.get("server_max_window_bits") or str(zlib.MAX_WBITS))


def _accept(key: str) -> str:
    try:
        is_key = len(base64.b64decode(key, validate=True)) == _KEY_BYTES
    except ValueError:
        is_key = False
    if not is_key:
        raise _refused("the key is not 16 bytes in base64")
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _last(headers: Headers, name: str) -> str:
    values = headers.getall(name, ())
    return values[-1].strip() if values else ""


def _tokens(headers: Headers, name: str) -> set[str]:
    return {token.strip().lower() for value in headers.getall(name, ()) for token in value.split(",")}


def _refused(reason: str) -> Refusal:
    return Refusal(ErrorCode.VALIDATION, f"not a WebSocket handshake: {reason}")
