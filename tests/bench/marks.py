"""Marks in message texts, from which a receiver reads place and age. Pure.

The text begins with a mark, `~<16 digits: µs of the monotonic clock>~`. All processes of a machine share that clock, so
the receiver computes the latency from the text. The server assigns the seq.
"""

import re
import time

from tests.bench.tally import Mark

_SEQ = re.compile(rb'"seq":(\d+)')
_SENT = re.compile(rb"~(\d{16})~")
COUNTED = b'"seq":'
MARK_BYTES = 18


def now_us() -> int:
    """Return microseconds of the clock that all processes share."""
    return time.monotonic_ns() // 1000


def marked_text(size: int, sent_us: int) -> str:
    """Return a message text of `size` bytes, at least the 18 of the mark."""
    return f"~{sent_us:016d}~".ljust(size, "x")


def message_frame(room_id: str, seq: int, size: int, sent_us: int) -> bytes:
    """Return a `chat:message` of exactly `size` bytes (if the fields leave room), without fields that no one reads."""
    head = f'{{"type":"chat:message","data":{{"chatroomId":"{room_id}","seq":{seq},"message":"'
    return f'{head}{marked_text(size - len(head) - 3, sent_us)}"}}}}'.encode()


def read_mark(payload: bytes) -> Mark | None:
    """Return the seq and the time of a message, or None for any other frame."""
    sent = _SENT.search(payload)
    if sent is None:
        return None
    seq = _SEQ.search(payload)
    return None if seq is None else Mark(int(seq[1]), int(sent[1]))
