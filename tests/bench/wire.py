"""A minimal client side of a WebSocket (RFC 6455): the upgrade, masked frames out, frames in. Pure."""

from typing import NamedTuple

TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10
_MASKED = 0x80


class BenchFrame(NamedTuple):
    """One frame of the server."""

    opcode: int
    payload: bytes


def upgrade_request(host: str, port: int, path: str, protocol: str | None = None) -> bytes:
    """Return the opening handshake with the RFC's example key: a load generator needs no secrecy."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    if protocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {protocol}")
    return "\r\n".join([*lines, "", ""]).encode()


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """Return a frame masked with the key 0: the same work for the server, less for the generator."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, _MASKED | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, _MASKED | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, _MASKED | 127)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


def frame_end(data: bytes | bytearray, start: int) -> tuple[int, int]:
    """Return where the payload of the frame at `start` begins and ends, or (0, 0) if its head is incomplete."""
    have = len(data) - start
    if have < 2:
        return 0, 0
    size = data[start + 1] & 0x7F
    if size < 126:
        return start + 2, start + 2 + size
    if size == 126:
        if have < 4:
            return 0, 0
        return start + 4, start + 4 + (data[start + 2] << 8 | data[start + 3])
    if have < 10:
        return 0, 0
    return start + 10, start + 10 + int.from_bytes(data[start + 2 : start + 10], "big")


class FrameScanner:
    """Turns bytes into complete frames and keeps incomplete ones; the servers here send no fragments."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[BenchFrame]:
        """Process what was read and return the frames completed by it."""
        if self.rest:
            data = self.rest + data
        frames: list[BenchFrame] = []
        start, size = 0, len(data)
        while True:
            payload, end = frame_end(data, start)
            if not end or end > size:
                break
            frames.append(BenchFrame(data[start] & 0x0F, data[payload:end]))
            start = end
        self.rest = data[start:]
        return frames
