"""The writer of inboxes: a notice gets its seq in each user's inbox, on disk, before it is delivered.

Only the active consumer of `notifier.events` writes here, so the last seqs can be cached. If a cached seq is wrong (a
consumer was cut off and continued), a unique index raises WriteConflict.
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence

from notifier import metrics
from notifier.events.notifications import Entry
from notifier.inbox.sequencing import UserNotice, assign
from notifier.inbox.store import InboxStore

HEADS_MAX = 200_000


class Inboxes:
    """The writer of all inboxes. Bound: the cached seqs of the 200,000 most recently used inboxes."""

    def __init__(self, store: InboxStore) -> None:
        self._store = store
        self._heads: OrderedDict[str, int] = OrderedDict()

    def forget(self) -> None:
        """Drop the cache, since another replica may have written."""
        self._heads.clear()

    async def keep(
        self, user_notices: Sequence[UserNotice], begun: Collection[str], now_ms: int
    ) -> dict[str, list[Entry]]:
        """Store the notices' entries, and return all of them by event key, in the order of the users.

        Events in `begun` may have entries already, which stay unchanged. Raises WriteConflict and Unavailable; then
        some of the entries may be stored, in the order of each inbox.
        """
        if not user_notices:
            return {}
        stored: dict[tuple[str, str], Entry] = {}
        for user_notice in user_notices:
            if user_notice.notice.key in begun:
                entries = await self._store.entries_of(user_notice.notice.key, user_notice.user_ids)
                stored |= {(entry.key, entry.user_id): entry for entry in entries}
        user_ids = {user_id for user_notice in user_notices for user_id in user_notice.user_ids}
        assigned = assign(user_notices, stored, await self._load(user_ids))
        try:
            await self._store.insert_entries(assigned.fresh, now_ms)
        except BaseException:
            for user_id in user_ids:
                self._heads.pop(user_id, None)
            raise
        self._remember(assigned.heads)
        metrics.ENTRIES_STORED.inc(len(assigned.fresh))
        return assigned.entries

    async def _load(self, user_ids: set[str]) -> dict[str, int]:
        known = {user_id: self._heads[user_id] for user_id in user_ids if user_id in self._heads}
        unknown = user_ids - known.keys()
        return known | await self._store.heads(unknown) if unknown else known

    def _remember(self, heads: dict[str, int]) -> None:
        for user_id, seq in heads.items():
            self._heads[user_id] = seq
            self._heads.move_to_end(user_id)
        while len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)
