"""The reader of index pages, and of messages without a page, for one query with a budget."""

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

from chat_service.search.index_store import IndexStore, PageKey
from chat_service.search.tree import Candidate, IndexedText, Page, StoredPage, candidates
from chat_service.search.words import Needle, matches

CHARACTERS_PER_UNIT = 64 * 1024
MESSAGES_PER_UNIT = 32  # read from the log in the time of a page: 1 ms


class Wanted(NamedTuple):
    """The query: all these words and, in one room, optionally one author."""

    needles: Sequence[Needle]
    author: str | None = None


class Looked(NamedTuple):
    """The candidates on a page of level 0, newest first, and the page's first message; "" if it has none."""

    found: Sequence[Candidate]
    first_id: str
    first_at_ms: int


class PageReader:
    """Reads for one query. `spent` counts pages looked at, and the messages of missing ones in units of 32."""

    def __init__(self, store: IndexStore, wanted: Wanted) -> None:
        self._store = store
        self._wanted = wanted
        self._pages: dict[PageKey, StoredPage | None] = {}
        self.spent = 0

    async def load(self, keys: Collection[PageKey]) -> None:
        """Read the pages that were not read yet, in one call."""
        missing = [key for key in keys if key not in self._pages]
        if missing:
            found = await self._store.pages(missing)
            self._pages |= {key: found.get(key) for key in missing}

    def has(self, room_id: str, page: Page) -> bool:
        """Return whether a page was loaded or found missing."""
        return (room_id, page) in self._pages

    def stored(self, room_id: str, page: Page) -> StoredPage | None:
        """Return a page that was loaded, if it exists."""
        return self._pages[room_id, page]

    def may_skip(self, room_id: str, page: Page) -> bool:
        """Return whether a loaded page of a higher level shows that no message below it has all words."""
        stored = self.stored(room_id, page)
        self.spent += stored is not None
        return stored is not None and not stored.may_contain(self._wanted.needles)

    async def look(self, room_id: str, page: Page, newest_seq: int) -> Looked:
        """Search a loaded page of level 0, and in the log those of its messages that the page does not hold yet.

        Only messages through seq `newest_seq` are searched.
        """
        stored = self._pages.pop((room_id, page))
        if stored is not None and stored.words is None:
            stored = None
        first = page.first_seq if stored is None else stored.through + 1
        last = min(page.last_seq, newest_seq)
        unindexed = await self._store.texts(room_id, first, last) if first <= last else []
        size = sum(len(one.text or "") for one in unindexed)
        self.spent += stored is not None
        self.spent += -(-len(unindexed) // MESSAGES_PER_UNIT) + size // CHARACTERS_PER_UNIT
        found = await asyncio.to_thread(self._among, room_id, unindexed) if unindexed else []
        if stored is None:
            oldest = unindexed[0] if unindexed else None
            return Looked(found, oldest.id if oldest else "", oldest.at_ms if oldest else 0)
        found += candidates(stored, self._wanted.needles, self._wanted.author, newest_seq)
        return Looked(found, stored.first_id, stored.first_at_ms)

    def _among(self, room_id: str, messages: Sequence[IndexedText]) -> list[Candidate]:
        """Return the wanted messages, newest first."""
        return [Candidate(one.at_ms, one.id, room_id, one.seq) for one in reversed(messages) if self._is_wanted(one)]

    def _is_wanted(self, message: IndexedText) -> bool:
        if message.text is None or self._wanted.author not in (None, message.user_id):
            return False
        return matches(self._wanted.needles, message.text)
