"""Fields read from delivered frames without parsing them. Pure.

A gateway relays frames as bytes. A delivery line has five tab-separated fields, and their number cannot change while
two releases run side by side. The few further facts that a gateway needs are found here, and nowhere else, by a search
for a fixed token in the frame. The search is safe: tokens contain quotation marks, which JSON escapes inside strings,
and our own encoder writes the fields in a fixed order.
"""

import re
from typing import NamedTuple

from shared.ids import made_at_ms

_MESSAGE = b'{"type":"chat:message"'
_MESSAGE_ID = b'"messageId":"'
_ID_BYTES = 30
_ANY_MESSAGE_ID = re.compile(rb'"messageId":"(msg_[0-9A-Z]{26})"')

_STALE = b'"stale":'
_TYPING = b'{"type":"chat:typing"'
_TYPING_START = b'"isTyping":true}}'
_TYPING_END = b'"isTyping":false}}'


class TypingFrame(NamedTuple):
    """A `chat:typing` frame. `end` is the matching frame that says `isTyping: false`."""

    is_start: bool
    end: bytes


def typing_frame(frame: bytes) -> TypingFrame | None:
    """Return the content of a `chat:typing` frame; None for any other frame."""
    if not frame.startswith(_TYPING):
        return None
    if frame.endswith(_TYPING_START):
        return TypingFrame(is_start=True, end=frame.removesuffix(_TYPING_START) + _TYPING_END)
    return TypingFrame(is_start=False, end=frame)


def marks_staleness(frame: bytes) -> bool:
    """Return whether a price marks its symbol as stale or no longer stale. Other prices lack the field."""
    return _STALE in frame


def sent_at_ms(frames: bytes) -> int | None:
    """Return the send time of the first `chat:message` in `frames`, read from its id; None without a message."""
    begins = frames.find(_MESSAGE)
    if begins < 0:
        return None
    begins = frames.find(_MESSAGE_ID, begins) + len(_MESSAGE_ID)
    try:
        return made_at_ms(frames[begins : begins + _ID_BYTES].decode())
    except ValueError:
        return None


def message_ids(body: bytes) -> list[str]:
    """Return the ids of all messages that a body of delivery lines stores, changes or answers."""
    return [found.decode() for found in _ANY_MESSAGE_ID.findall(body)]
