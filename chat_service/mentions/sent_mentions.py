"""The rate of mention notifications: at most 60 of a sender in an hour, by the times of the entries. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

SENT_MAX = 60
WINDOW_MS = 3_600_000


class SentMention(NamedTuple):
    """A mention whose notification was sent. `id` is that of the event, so a repeat is sent again and counts once."""

    id: str
    at_ms: int


class SentMentions(NamedTuple):
    """The mentions of a sender sent in the last hour. `rev` is that of their document; 0: there is none."""

    rev: int = 0
    recent: tuple[SentMention, ...] = ()


def within_rate(sent: SentMentions, ids: Iterable[str], at_ms: int) -> tuple[list[str], SentMentions]:
    """Return the mentions to send, in order, and the sent mentions including them."""
    recent = {one.id: one for one in sent.recent if one.at_ms > at_ms - WINDOW_MS}
    passed: list[str] = []
    for id_ in ids:
        if id_ not in recent:
            if len(recent) >= SENT_MAX:
                continue
            recent[id_] = SentMention(id_, at_ms)
        passed.append(id_)
    return passed, SentMentions(sent.rev, tuple(recent.values()))
