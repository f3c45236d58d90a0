"""The only looks inside a delivered frame. Pure.

A gateway relays frames without parsing them. Five tab-separated fields are all that the line format carries, and it
cannot change while services and gateways of two releases run side by side. So what a line does not say is read from the
bytes of its frame here, by a search for a fixed token, and nowhere else. The tokens are safe: they contain quotation
marks, which JSON escapes inside strings, and our own encoder writes the fields in a fixed order.
"""

import re
from typing import NamedTuple

from shared.ids import made_at_ms

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
    """Return what a `chat:typing` frame shows; None for any other frame."""
    if not frame.startswith(_TYPING):
        return None
    if frame.endswith(_TYPING_START):
        return TypingFrame(is_start=True, end=frame.removesuffix(_TYPING_START) + _TYPING_END)
    return TypingFrame(is_start=False, end=frame)


def marks_staleness(frame: bytes) -> bool:
    """Return whether a price announces that its symbol turned stale or moves again. Other prices lack the field."""
    return _STALE in frame


def sent_at_ms(frames: bytes) -> int | None:
    """Return when the first `chat:message` of some frames was sent, read from its id; None without a message."""
    begins = frames.find(_MESSAGE_ID)
    if begins < 0:
        return None
    begins += len(_MESSAGE_ID)
    try:
        return made_at_ms(frames[begins : begins + _ID_BYTES].decode())
    except ValueError:
        return None


def message_ids(body: bytes) -> list[str]:
    """Return the ids of all `chat:message` frames in a body of delivery lines."""
    return [found.decode() for found in _ANY_MESSAGE_ID.findall(body)]
