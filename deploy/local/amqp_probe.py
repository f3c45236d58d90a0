"""A login probe for a broker over a bare socket: one complete AMQP 0-9-1 handshake.

A shorter probe (only a TCP connect, or only a protocol header) proves less, or logs a warning in the broker each time.
Method numbers and layouts: https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf
"""

import socket
import struct

_METHOD_FRAME = 1
_FRAME_END = 0xCE
_START, _START_OK, _TUNE, _TUNE_OK, _OPEN, _OPEN_OK, _CLOSE, _CLOSE_OK = 10, 11, 30, 31, 40, 41, 50, 51


def _short(text: bytes) -> bytes:
    return struct.pack("!B", len(text)) + text


def _long(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


_LOGIN = _long(b"") + _short(b"PLAIN") + _long(b"\0guest\0guest") + _short(b"en_US")


def accepts_logins(port: int, timeout_s: float = 2.0) -> bool:
    """Return whether the broker on this loopback port opens a connection to the virtual host `/` for guest."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            _receive(connection, _START)
            connection.sendall(_method(_START_OK, _LOGIN))
            limits = _receive(connection, _TUNE)
            connection.sendall(_method(_TUNE_OK, limits) + _method(_OPEN, _short(b"/") + _short(b"") + b"\0"))
            _receive(connection, _OPEN_OK)
            connection.sendall(_method(_CLOSE, struct.pack("!H", 200) + _short(b"") + struct.pack("!HH", 0, 0)))
            _receive(connection, _CLOSE_OK)
    except (OSError, ValueError, struct.error):
        return False
    return True


def _method(number: int, arguments: bytes) -> bytes:
    payload = struct.pack("!HH", 10, number) + arguments
    return struct.pack("!BHI", _METHOD_FRAME, 0, len(payload)) + payload + bytes([_FRAME_END])


def _receive(connection: socket.socket, number: int) -> bytes:
    """Return the arguments of the next frame, which must be the connection method `number`."""
    frame_type, _, size_bytes = struct.unpack("!BHI", _read(connection, 7))
    payload = _read(connection, size_bytes + 1)
    if frame_type != _METHOD_FRAME or struct.unpack("!HH", payload[:4]) != (10, number):
        raise ValueError("an unexpected frame")
    return payload[4:-1]


def _read(connection: socket.socket, size_bytes: int) -> bytes:
    received = b""
    while len(received) < size_bytes:
        part = connection.recv(size_bytes - len(received))
        if not part:
            raise ConnectionError("closed during the handshake")
        received += part
    return received
