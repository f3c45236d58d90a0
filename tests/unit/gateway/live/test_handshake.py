"""The opening handshake: RFC 6455's example, refusals, and the negotiation of compression."""

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from multidict import CIMultiDict

from gateway.live.handshake import negotiate, shake_hands
from shared.errors import ErrorCode, Refusal

EXAMPLE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def answer(changed: Mapping[str, str | None] = MappingProxyType({}), *, compression: bool = False) -> bytes:
    headers = CIMultiDict({name: value for name, value in {**EXAMPLE, **changed}.items() if value is not None})
    return shake_hands(headers, compression=compression, server="realtime").answer


def test_example_of_the_rfc_is_accepted() -> None:
    assert answer() == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nServer: realtime\r\n\r\n"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": "WebSocket"},
        {"Connection": "keep-alive, Upgrade"},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Extensions": "permessage-deflate"},
        {"Sec-WebSocket-Protocol": "chat"},
    ],
)
def test_variants_are_accepted(changed: dict[str, str]) -> None:
    assert answer(changed) == answer()


@pytest.mark.parametrize(
    "changed",
    [
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Upgrade": "websocket\udcff"},
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Key": None},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "c2hvcnQ="},
        {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ"},
        {"Sec-WebSocket-Key": "dGhl\udcd6HNhbXBsZSBub25jZQ=="},
    ],
)
def test_invalid_handshake_is_refused(changed: dict[str, str | None]) -> None:
    with pytest.raises(Refusal) as caught:
        answer(changed)
    assert caught.value.code is ErrorCode.VALIDATION


def test_agreed_compression_is_announced() -> None:
    lines = answer({"Sec-WebSocket-Extensions": "permessage-deflate"}, compression=True).split(b"\r\n")
    assert b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover" in lines


@pytest.mark.parametrize(
    ("offer", "accepted", "window"),
    [
        ("permessage-deflate", "permessage-deflate; server_no_context_takeover", 15),
        ("Permessage-Deflate; client_max_window_bits", "permessage-deflate; server_no_context_takeover", 15),
        (
            "permessage-deflate;server_max_window_bits=15",
            "permessage-deflate; server_max_window_bits=15; server_no_context_takeover",
            15,
        ),
        (
            'x-unknown, permessage-deflate; server_max_window_bits="12"; server_no_context_takeover',
            "permessage-deflate; server_max_window_bits=12; server_no_context_takeover",
            12,
        ),
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
            "permessage-deflate; server_no_context_takeover",
            15,
        ),
    ],
)
def test_first_acceptable_offer_is_accepted(offer: str, accepted: str, window: int) -> None:
    assert negotiate([offer]) == (accepted, window)
    assert negotiate(offer.split(", ")) == (accepted, window)


@pytest.mark.parametrize(
    "offer",
    [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; unknown",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
    ],
)
def test_other_offers_are_declined(offer: str) -> None:
    assert negotiate([offer]) is None
