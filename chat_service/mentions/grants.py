"""The rate of notified mentions: at most 60 of a sender in an hour, counted by the times of the entries. Pure."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

GRANTS_MAX = 60
WINDOW_MS = 3_600_000


class Grant(NamedTuple):
    """A notified mention; `id` is that of its event, so that a repeat is granted again and counts once."""

    id: str
    at_ms: int


class Grants(NamedTuple):
    """The notified mentions of a sender in the last hour. `rev` is that of their document; 0: there is none."""

    rev: int = 0
    recent: tuple[Grant, ...] = ()


class Asked(NamedTuple):
    """The ids of the events that a message would cause, in order, and the time of its entry."""

    ids: Sequence[str]
    at_ms: int


def all_granted(grants: Grants, asked: Iterable[Asked]) -> tuple[set[str], Grants]:
    """Return which mentions of a sender's messages are notified, and the grants after them."""
    passed: set[str] = set()
    for one in asked:
        some, grants = granted(grants, one.ids, one.at_ms)
        passed.update(some)
    return passed, grants


def granted(grants: Grants, ids: Iterable[str], at_ms: int) -> tuple[list[str], Grants]:
    """Return which of these mentions are notified, in order, and the grants after them."""
    recent = {grant.id: grant for grant in grants.recent if grant.at_ms > at_ms - WINDOW_MS}
    passed: list[str] = []
    for id_ in ids:
        if id_ not in recent:
            if len(recent) >= GRANTS_MAX:
                continue
            recent[id_] = Grant(id_, at_ms)
        passed.append(id_)
    return passed, Grants(grants.rev, tuple(recent.values()))
