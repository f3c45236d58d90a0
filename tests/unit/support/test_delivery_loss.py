"""Deliveries that a proxy loses as a whole, from bytes in arbitrary pieces."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.delivery_loss import DeliveryFilter


def amqp(kind: int, channel: int, payload: bytes) -> bytes:
    return bytes([kind]) + channel.to_bytes(2) + len(payload).to_bytes(4) + payload + b"\xce"


def delivery(channel: int, *parts: bytes) -> bytes:
    """Return the frames of a delivery whose body is in several parts."""
    size = sum(map(len, parts))
    head = b"\0\x3c\0\0" + size.to_bytes(8) + b"\0\0"
    method = amqp(1, channel, b"\0\x3c\0\x3c" + b"ctag")
    return method + amqp(2, channel, head) + b"".join(amqp(3, channel, part) for part in parts)


ACK = amqp(1, 1, b"\0\x3c\0\x50" + bytes(9))
KEPT = delivery(1, b"kept") + ACK + delivery(2, b"ke", b"pt too") + delivery(1)
ALL = (
    delivery(1, b"lo", b"st")
    + KEPT[: len(delivery(1, b"kept"))]
    + delivery(2, b"lost")
    + KEPT[len(delivery(1, b"kept")) :]
)


@given(st.lists(st.integers(1, 40)))
def test_lost_deliveries_vanish_and_all_else_passes(sizes: list[int]) -> None:
    filtered = DeliveryFilter(lambda body: body == b"lost")
    received, at = b"", 0
    for size in sizes:
        received += filtered.feed(ALL[at : at + size])
        at += size
    received += filtered.feed(ALL[at:])
    assert received == KEPT
    assert filtered.lost == 2


def test_frames_of_other_channels_pass_during_a_delivery() -> None:
    whole = delivery(1, b"lost")
    cut = len(amqp(1, 1, b"\0\x3c\0\x3c" + b"ctag"))
    filtered = DeliveryFilter(lambda body: body == b"lost")
    assert filtered.feed(whole[:cut] + amqp(8, 0, b"") + whole[cut:]) == amqp(8, 0, b"")
