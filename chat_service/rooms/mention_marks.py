"""Mentions by message, updated from log entries. Pure."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from chat_service.rooms.changes import Edit, Erasure
from chat_service.rooms.log import LogEntry
from shared.protocol.message_parts import MessageExtras

ROOM = ""  # in place of a user id, which is never empty: all members are mentioned


class MentionMark(NamedTuple):
    """The start or end of a mention: message `seq` mentions a user, or `ROOM`, or no longer does."""

    user_id: str
    seq: int
    is_active: bool


def mentioned(mentions: MessageExtras | Erasure) -> tuple[str, ...]:
    """Return the users whom a message mentions, and `ROOM` if it mentions all members."""
    return (*mentions.mentions, ROOM) if mentions.mention_room else mentions.mentions


def marks_of(entry: LogEntry) -> Iterator[MentionMark]:
    """Yield the mentions that an entry makes or ends."""
    message = entry.message
    if message is not None:
        yield from (MentionMark(user_id, message.seq, True) for user_id in mentioned(message.extras))
    match entry.change:
        case Edit() as change:
            yield from (MentionMark(user_id, change.seq, True) for user_id in change.mentions)
            yield from (MentionMark(user_id, change.seq, False) for user_id in change.unmentioned)
        case Erasure() as change:
            yield from (MentionMark(user_id, change.seq, False) for user_id in mentioned(change))


def with_marks(seqs: Iterable[int], user_id: str, marks: Iterable[MentionMark]) -> set[int]:
    """Return the messages that mention a user, or `ROOM`, after applying further marks in log order."""
    mentioning = set(seqs)
    for mark in marks:
        if mark.user_id == user_id:
            (mentioning.add if mark.is_active else mentioning.discard)(mark.seq)
    return mentioning
