"""Ordinary upgrade requests are read; everything else is left to aiohttp."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.upgrade_head import HEAD_MAX_BYTES, HEADERS_MAX, parse

LINE = b"GET /v1/live HTTP/1.1\r\n"
HEADERS = (
    b"Host: x",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
)


def request(*more: bytes, line: bytes = LINE, without: int | None = None) -> bytes:
    own = [header for number, header in enumerate(HEADERS) if number != without]
    return line + b"\r\n".join((*own, *more)) + b"\r\n\r\n"


def test_ordinary_request_is_read() -> None:
    head = parse(
        request(b"origin:https://app.example \t", b"X-Forwarded-For: a, b", b"X-FORWARDED-FOR:", b"x: 1  2"), LINE
    )
    assert head is not None
    assert head.getall("Upgrade") == ["websocket"]
    assert head.getall("ORIGIN") == ["https://app.example"]
    assert head.getall("X-Forwarded-For") == ["a, b", ""]
    assert head.getall("X") == ["1  2"]
    assert head.getall("Unknown", ("default",)) == ("default",)


def test_incomplete_head_and_bytes_after_it_are_left_to_aiohttp() -> None:
    data = request()
    assert parse(data, LINE) is not None
    assert [end for end in range(len(data)) if parse(data[:end], LINE) is not None] == []
    assert parse(data + b"\x81\x80", LINE) is None


@pytest.mark.parametrize(
    "data",
    [
        request(line=b"GET /v1/live?x=1 HTTP/1.1\r\n"),
        request(line=b"GET /v1/live HTTP/1.0\r\n"),
        request(line=b"HEAD /v1/live HTTP/1.1\r\n"),
        *(request(without=number) for number in (0, 1, 3, 4)),
        *(request(header) for header in HEADERS if not header.startswith(b"Connection")),
        request(b"Content-Length: 0"),
        request(b"Content-Length: 5"),
        request(b"Transfer-Encoding: chunked"),
        request(b"Expect: 100-continue"),
        request(b"Authorization: Bearer x"),
        request(b"Content-Encoding: br"),
        request(b"Sec-WebSocket-Key1: x"),
        *(request(name + b": a", name + b": b") for name in (b"User-Agent", b"Content-Type", b"ETag", b"Max-Forwards")),
        request(b"Folded: a", b" b"),
        request(b"Space : a"),
        request(b": a"),
        request(b"NoColon"),
        request(b"Bare: a\nb"),
        request(b"Nul: a\x00b"),
        request(b"Latin: \xd6"),
        request(b"Tab:\x0b"),
        request(b"", b"a: b"),
        request(*[b"a: b"] * HEADERS_MAX),
        request(b"a: " + b"x" * HEAD_MAX_BYTES),
        b"",
    ],
)
def test_anything_else_is_left_to_aiohttp(data: bytes) -> None:
    assert parse(data, LINE) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_left(more: bytes) -> None:
    head = parse(request(b"a: b")[:-2] + more + b"\r\n\r\n", LINE)
    assert head is None or head.getall("Host") == ["x"]
