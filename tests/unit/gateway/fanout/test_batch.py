"""Frames that leave together, plain and compressed."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.batch import Batch
from gateway.fanout.wire import DEFLATED_MIN_BYTES, deflated_frame, text_frame
from tests.bench.wire import frame_end

RSV1 = 0x40


def unpacked(data: bytes) -> list[bytes]:
    """Return the payloads of frames as a client reads them, each inflated without context."""
    payloads: list[bytes] = []
    start = 0
    while start < len(data):
        begin, end = frame_end(data, start)
        payload = data[begin:end]
        if data[start] & RSV1:
            payload = zlib.decompress(payload + b"\x00\x00\xff\xff", -zlib.MAX_WBITS)
        payloads.append(payload)
        start = end
    return payloads


texts = st.one_of(st.binary(max_size=600), st.text("ab", max_size=70_000).map(str.encode))


@given(st.lists(texts, min_size=1, max_size=6))
def test_compressed_form_equals_the_plain_one(payloads: list[bytes]) -> None:
    batch = Batch.lossless([text_frame(payload) for payload in payloads])
    assert unpacked(batch.data) == payloads
    assert unpacked(batch.deflated) == payloads
    assert len(batch.deflated) <= len(batch.data)


def test_compressed_form_is_computed_once() -> None:
    batch = Batch.lossless([text_frame(b"x" * 1_000)])
    assert batch.deflated is batch.deflated
    assert len(batch.deflated) < 100


def test_short_and_incompressible_frames_stay_plain() -> None:
    short = text_frame(b"x" * (DEFLATED_MIN_BYTES - 1))
    assert deflated_frame(short) == short
    noise = text_frame(bytes(range(256)) * 1)
    assert deflated_frame(noise) == noise
