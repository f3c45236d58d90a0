"""The seq of each recipient's entry. Pure.

A stored entry keeps its seq; a new one gets the next seq of its inbox. A batch that is repeated, wholly or in part,
thus gives every user the same seqs, without gaps.
"""

from collections.abc import Mapping, Sequence

import msgspec

from notifier.events.notifications import Entry, Notice, notification_id

Stored = Mapping[tuple[str, str], Entry]  # by event key and user id


class UserNotice(msgspec.Struct, frozen=True):
    """A notice, and the users whose inboxes receive it."""

    notice: Notice
    user_ids: tuple[str, ...]


class Assigned(msgspec.Struct, frozen=True):
    """The entries of a batch by event key, in the order of the users.

    `fresh` are the entries to be stored, in this order; `heads` are the last seqs of all inboxes concerned.
    """

    entries: dict[str, list[Entry]]
    fresh: list[Entry]
    heads: dict[str, int]


def assign(user_notices: Sequence[UserNotice], stored: Stored, heads: Mapping[str, int]) -> Assigned:
    """Give every recipient's entry its seq. `heads` holds the last seq of every inbox concerned."""
    last = dict(heads)
    for entry in stored.values():
        last[entry.user_id] = max(last.get(entry.user_id, 0), entry.seq)
    fresh: list[Entry] = []
    entries = {
        user_notice.notice.key: [
            _entry(user_notice.notice, user_id, stored, last, fresh) for user_id in user_notice.user_ids
        ]
        for user_notice in user_notices
    }
    return Assigned(entries, fresh, last)


def _entry(notice: Notice, user_id: str, stored: Stored, last: dict[str, int], fresh: list[Entry]) -> Entry:
    entry = stored.get((notice.key, user_id))
    if entry is None:
        last[user_id] += 1
        entry = Entry(notification_id(notice, user_id), notice.key, user_id, last[user_id])
        fresh.append(entry)
    return entry
