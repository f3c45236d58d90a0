"""What a message of the load carries, so that a receiver can tell its place and its age. Pure.

The text begins with a mark, `~<16 digits: µs of the monotonic clock>~`. That clock is one for all processes of a
machine, so the receiver reads the latency from the text. The seq is the server's.
"""

import re
import time

from tests.bench.tally import Mark

_SEQ = re.compile(rb'"seq":(\d+)')
_SENT = re.compile(rb"~(\d{16})~")
COUNTED = b'"seq":'
MARK_BYTES = 18


def now_us() -> int:
    """Microseconds of the clock that all processes share."""
    return time.monotonic_ns() // 1000


def marked_text(size: int, sent_us: int) -> str:
    """A message text of `size` bytes, at least the mark's own 18."""
    return f"~{sent_us:016d}~".ljust(size, "x")


def message_frame(room_id: str, seq: int, size: int, sent_us: int) -> bytes:
    """A `chat:message` of exactly `size` bytes (if the fields leave room for that), without what nobody looks at."""
    head = f'{{"type":"chat:message","data":{{"chatroomId":"{room_id}","seq":{seq},"message":"'
    return f'{head}{marked_text(size - len(head) - 3, sent_us)}"}}}}'.encode()


def read_mark(payload: bytes) -> Mark | None:
    """The seq and the time of a message; None for any other frame."""
    sent = _SENT.search(payload)
    if sent is None:
        return None
    seq = _SEQ.search(payload)
    return None if seq is None else Mark(int(seq[1]), int(sent[1]))
