"""Builds pages of the index: those of level 0 from messages, higher ones from the pages below.

A page takes milliseconds to build, and seconds if its messages are large, so that is done in a thread.
"""

import asyncio
from collections.abc import Collection

from chat_service.search.index_store import IndexStore
from chat_service.search.tree import LEVEL_MAX, Page, StoredPage, chunk_from, merged


class PageBuilder:
    """Writes pages of the index. Every method is idempotent and raises Unavailable.

    A built page reflects the log at least through `rev`, an entry of the room's log, because messages are read after
    it.
    """

    def __init__(self, store: IndexStore) -> None:
        self._store = store

    async def build_chunk(self, room_id: str, page: Page, rev: int, erased: frozenset[str]) -> StoredPage | None:
        """Build a page of level 0 from the messages as they are now; None if there are none.

        `erased` messages have no words, even if their documents still show a text.
        """
        found = await self._store.texts(room_id, page.first_seq, page.last_seq)
        if not found:
            return None
        shown = [one._replace(text=None) if one.id in erased else one for one in found]
        built = await asyncio.to_thread(chunk_from, room_id, page, rev, shown)
        await self._store.put_pages([built])
        return built

    async def build_above(self, room_id: str, pages: Collection[Page], rev: int) -> None:
        """Build, level by level, each page above `pages` whose children are all complete.

        With the same rev a page can be written only once, so its children must be written before it. If the last child
        is among `pages`, the others should be complete too; level-0 children that a killed process left missing or
        incomplete are then built here.
        """
        while pages and max(pages).level < LEVEL_MAX:
            built: list[Page] = []
            for page in sorted({page.parent for page in pages}):
                children = await self._children(room_id, page, rev, repairs=page.children[-1] in pages)
                if len(children) == len(page.children):
                    await self._store.put_pages([await asyncio.to_thread(merged, page, rev, children)])
                    built.append(page)
            pages = built

    async def _children(self, room_id: str, page: Page, rev: int, *, repairs: bool) -> list[StoredPage]:
        """Return the complete pages below a page, oldest first."""
        found = await self._store.pages([(room_id, child) for child in page.children])
        children: list[StoredPage] = []
        for child in page.children:
            stored = found.get((room_id, child))
            if (stored is None or not stored.is_complete) and repairs and child.level == 0:
                stored = await self.build_chunk(room_id, child, rev, frozenset())
            if stored is not None and stored.is_complete:
                children.append(stored)
        return children
