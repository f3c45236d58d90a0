"""Fields read from delivered frames, without parsing the frequent ones. Pure.

A gateway relays frames as bytes. A delivery line has five tab-separated fields, and their number cannot change while
two releases run side by side. Only this module reads fields inside the client frame: those of frequent frames by a
search for fixed tokens. Rare frames (messages with mentions, edits, departures, read marks) are decoded. The search is
safe: tokens contain quotation marks, which JSON escapes inside strings, and our own encoder writes the fields in a
fixed order.
"""

import re
from typing import NamedTuple

import msgspec

from shared.ids import made_at_ms
from shared.protocol.server_frames import ReadMark

_MESSAGE = b'{"type":"chat:message"'
_MESSAGE_ID = b'"messageId":"'
_ID_BYTES = 30
_ANY_MESSAGE_ID = re.compile(rb'"messageId":"(msg_[0-9A-Z]{26})"')

_AUTHOR = b'","userId":"'
_TEXT = b'","message":"'
_TIME = b'","timestamp":"'
_SEQ = b'","seq":'
_REV = b',"rev":'
_MENTIONS = b',"mentions":['
_MENTION_ROOM = b',"mentionRoom":true'
_EDITED = b'{"type":"chat:updated"'
_DELETED = b'{"type":"chat:deleted"'
_LEFT = b'{"type":"member:left"'
_READ = b'{"type":"chat:read"'

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


class PeekedMessage(NamedTuple):
    """A `chat:message` frame: its author, time, seq and mentions."""

    user_id: str
    at: bytes
    seq: int
    mentions: tuple[str, ...] = ()
    mentions_room: bool = False


def message_of(frame: bytes) -> PeekedMessage | None:
    """Return the fields of a `chat:message` frame; None for any other frame. HOT: 1 us for each message.

    Frames without mentions (almost all) are not parsed.
    """
    if not frame.startswith(_MESSAGE):
        return None
    author = frame.find(_AUTHOR) + len(_AUTHOR)
    text = frame.find(_TEXT, author)
    at = frame.find(_TIME, text) + len(_TIME)
    seq = frame.find(_SEQ, at)
    rev = frame.find(_REV, seq)
    user_id = frame[author:text]
    peeked = PeekedMessage(
        msgspec.json.decode(b'"%b"' % user_id, type=str) if b"\\" in user_id else user_id.decode(),
        frame[at:seq],
        int(frame[seq + len(_SEQ) : rev]),
    )
    if frame.find(_MENTIONS, rev) < 0 and frame.find(_MENTION_ROOM, rev) < 0:
        return peeked
    data = _mentioning.decode(frame).data
    return peeked._replace(mentions=data.mentions, mentions_room=data.mention_room)


def changes_mentions(frame: bytes) -> bool:
    """Return whether a frame is about a change of a message that may change its mentions."""
    return frame.startswith((_EDITED, _DELETED))


def edited_mentions(frame: bytes) -> tuple[str, ...]:
    """Return the users whom an edited message mentions now."""
    return _mentioning.decode(frame).data.mentions


def user_who_left(frame: bytes) -> str | None:
    """Return the user of a `member:left` frame; None for any other frame."""
    return _leaving.decode(frame).data.user_id if frame.startswith(_LEFT) else None


def read_mark(frame: bytes) -> ReadMark | None:
    """Return the mark of a `chat:read` frame; None for any other frame."""
    return _reading.decode(frame).data if frame.startswith(_READ) else None


class _Mentions(msgspec.Struct, frozen=True, rename="camel"):
    mentions: tuple[str, ...] = ()
    mention_room: bool = False


class _Mentioning(msgspec.Struct, frozen=True):
    data: _Mentions


class _Leaver(msgspec.Struct, frozen=True, rename="camel"):
    user_id: str


class _Leaving(msgspec.Struct, frozen=True):
    data: _Leaver


class _Reading(msgspec.Struct, frozen=True):
    data: ReadMark


_mentioning = msgspec.json.Decoder(_Mentioning)
_leaving = msgspec.json.Decoder(_Leaving)
_reading = msgspec.json.Decoder(_Reading)


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
    """Return the ids of all messages named in a body of delivery lines: new, changed, and in answers to sends."""
    return [found.decode() for found in _ANY_MESSAGE_ID.findall(body)]
