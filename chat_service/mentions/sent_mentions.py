"""The rate of notified mentions: at most 60 of a sender in an hour, counted by the times of the entries. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

SENT_MAX = 60
WINDOW_MS = 3_600_000


class SentMention(NamedTuple):
    """A notified mention; `id` is that of its event, so that a repeat is sent again and counts once."""

    id: str
    at_ms: int


class SentMentions(NamedTuple):
    """The notified mentions of a sender in the last hour. `rev` is that of their document; 0: there is none."""

    rev: int = 0
    recent: tuple[SentMention, ...] = ()


class Asked(NamedTuple):
    """The ids of the events that a message would cause, in order, and the time of its entry."""

    ids: Sequence[str]
    at_ms: int


def all_within_rate(sent: SentMentions, asked: Iterable[Asked]) -> tuple[set[str], SentMentions]:
    """Return which mentions of a sender's messages are notified, and the sent mentions after them."""
    passed: set[str] = set()
    for one in asked:
        some, sent = within_rate(sent, one.ids, one.at_ms)
        passed.update(some)
    return passed, sent


def within_rate(sent: SentMentions, ids: Iterable[str], at_ms: int) -> tuple[list[str], SentMentions]:
    """Return which of these mentions are notified, in order, and the sent mentions after them."""
    recent = {one.id: one for one in sent.recent if one.at_ms > at_ms - WINDOW_MS}
    passed: list[str] = []
    for id_ in ids:
        if id_ not in recent:
            if len(recent) >= SENT_MAX:
                continue
            recent[id_] = SentMention(id_, at_ms)
        passed.append(id_)
    return passed, SentMentions(sent.rev, tuple(recent.values()))
