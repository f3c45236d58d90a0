"""The consumer of log entries that keeps the search index up to date.

A new message adds an index row to the newest page of its room. Rows gather for 30 s, or until the room has 128, because
each write rewrites the page. Searches do not wait for that: they read messages newer than the newest page from the log.
An edit, a deletion of a message, and a deletion of a room change the index at once.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from chat_service.follower.consumer import RoomBatch
from chat_service.rooms.changes import Edit, Erasure
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.search.builder import PageBuilder
from chat_service.search.index_store import IndexStore
from chat_service.search.tree import (
    IndexedText,
    Page,
    StoredPage,
    chunk_from,
    chunk_of,
    extended,
)
from shared.mongo import chunks

GATHER_MS = 30_000
ROWS_MAX = 128  # of a room; a page costs 1 ms of CPU each time
ROWS_TOTAL_MAX = 40_000
TEXT_TOTAL_MAX = 16 * 1024 * 1024
# Rooms written per turn; a quarter of the due rooms if more than 80 are due. The turn holds up this consumer.
ROOMS_PER_TURN = 20
ROOMS_PER_WRITE = 10  # whose pages are compressed in one turn of the event loop: 5 ms


@dataclass(slots=True)
class _Tail:
    """The newest messages of a room, which have no index row yet, oldest first."""

    rev: int
    since_ms: int
    messages: list[IndexedText] = field(default_factory=list)


class SearchIndexer:
    """Updates the index after commits.

    Bound: 40,000 messages without an index row, and 16 M characters of them; beyond it half of the rooms are written.
    """

    name = "search"

    def __init__(self, store: IndexStore, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._builder = PageBuilder(store)
        self._clock_ms = clock_ms
        self._tails: dict[str, _Tail] = {}
        self._count = 0
        self._size = 0  # characters of text

    def wanted(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Return all entries: almost all are messages."""
        return entries

    async def take(self, batches: Sequence[RoomBatch]) -> None:
        """Index these entries.

        A row that is still in memory when this process dies is built by the next owner, when it writes a later row of
        that page; until then searches read the message from the log.
        """
        for batch in batches:
            self._gather(batch)
            changing = [entry for entry in batch.entries if isinstance(entry.change, Edit | Erasure)]
            if any(entry.kind is EntryKind.DELETED for entry in batch.entries):
                self._forget(batch.room_id)
                await self._store.remove_room(batch.room_id)
            elif changing:
                await self._change(batch.room_id, changing, batch.entries[-1].rev)
        await self._write(self._due())

    def drop(self, is_lost: Callable[[str], bool]) -> None:
        """Forget the rows of rooms that another process owns now, which may erase their messages."""
        for room_id in list(filter(is_lost, self._tails)):
            self._forget(room_id)

    async def finish(self) -> None:
        """Write all rows, because the process stops."""
        await self._write(list(self._tails))

    def _gather(self, batch: RoomBatch) -> None:
        for entry in batch.entries:
            if (message := entry.message) is None:
                continue
            tail = self._tails.get(batch.room_id)
            if tail is None:
                tail = self._tails[batch.room_id] = _Tail(entry.rev, self._clock_ms())
            if tail.messages and message.seq != tail.messages[-1].seq + 1:  # a repeat
                continue
            tail.rev = entry.rev
            tail.messages.append(
                IndexedText(message.id, message.seq, message.user_id, message.created_at_ms, message.text or None)
            )
            self._count += 1
            self._size += len(message.text)

    def _due(self) -> list[str]:
        """Return the rooms to write now, not too many at a time, the longest-waiting first."""
        if self._count > ROWS_TOTAL_MAX or self._size > TEXT_TOTAL_MAX:
            return list(self._tails)[: len(self._tails) // 2 + 1]
        due_ms = self._clock_ms() - GATHER_MS
        due = [
            room_id
            for room_id, tail in self._tails.items()
            if len(tail.messages) >= ROWS_MAX or tail.since_ms <= due_ms
        ]
        return due[: max(ROOMS_PER_TURN, len(due) // 4)]

    def _forget(self, room_id: str) -> None:
        if (tail := self._tails.pop(room_id, None)) is not None:
            self._count -= len(tail.messages)
            self._size -= sum(len(message.text or "") for message in tail.messages)

    # Changes of messages --------------------------------------------------------------------------------------------

    async def _change(self, room_id: str, entries: Sequence[LogEntry], rev: int) -> None:
        """Build the pages of changed messages again, from the messages as they are now after entry `rev`.

        With the same rev a page can be written only once, so a changed page is built from the messages alone, not from
        rows in memory as well. If rows in memory belong to a changed page, the room's other rows are written now,
        and all its rows are dropped from memory, so that no erased text stays there.
        """
        changes = [entry.change for entry in entries if entry.change is not None]
        erased = frozenset(change.message_id for change in changes if isinstance(change, Erasure))
        pages = {chunk_of(change.seq) for change in changes}
        tail = self._tails.get(room_id)
        is_in_tail = tail is not None and not pages.isdisjoint(_pages_of(tail.messages))
        completed: list[Page] = []
        if tail is not None and is_in_tail:
            others = [message for message in tail.messages if chunk_of(message.seq) not in pages]
            completed += [page for _, page, _ in await self._write_tails({room_id: replace(tail, messages=others)})]
        for page in sorted(pages):
            built = await self._builder.build_chunk(room_id, page, rev, erased)
            if built is not None and built.is_complete:
                completed.append(page)
        await self._builder.build_above(room_id, completed, rev)
        if is_in_tail:
            self._forget(room_id)

    # Lines ----------------------------------------------------------------------------------------------------------

    async def _write(self, room_ids: Sequence[str]) -> None:
        for some in chunks(room_ids, ROOMS_PER_WRITE):
            tails = {room_id: tail for room_id in some if (tail := self._tails.get(room_id)) is not None}
            completed = await self._write_tails(tails)
            for room_id, page, rev in completed:
                await self._builder.build_above(room_id, [page], rev)
            for room_id in some:
                self._forget(room_id)

    async def _write_tails(self, tails: dict[str, _Tail]) -> list[tuple[str, Page, int]]:
        """Write rows. Return the level-0 pages that complete a level-1 page, each with its room and rev."""
        keys = [(room_id, page) for room_id, tail in tails.items() for page in _pages_of(tail.messages)]
        stored = await self._store.pages(keys)
        new: list[StoredPage] = []
        changed: list[tuple[StoredPage, int]] = []
        completed: list[tuple[str, Page, int]] = []
        for room_id, page in keys:
            tail = tails[room_id]
            mine = [message for message in tail.messages if chunk_of(message.seq) == page]
            before = stored.get((room_id, page))
            if mine[-1].seq == page.parent.last_seq:  # also if an attempt failed after it had written the rows
                completed.append((room_id, page, tail.rev))
            if before is not None and before.through >= mine[-1].seq:
                continue
            if before is None and mine[0].seq == page.first_seq:
                new.append(await asyncio.to_thread(chunk_from, room_id, page, tail.rev, mine))
            elif before is not None and before.through + 1 >= mine[0].seq and before.rev < tail.rev:
                added = [message for message in mine if message.seq > before.through]
                changed.append((await asyncio.to_thread(extended, before, tail.rev, added), before.rev))
            else:  # messages between the page and these were never written: the process that had them was killed
                await self._builder.build_chunk(room_id, page, tail.rev, frozenset())
        await self._store.put_pages(new)
        await self._store.replace_pages(changed)
        return completed


def _pages_of(messages: Iterable[IndexedText]) -> list[Page]:
    return list(dict.fromkeys(chunk_of(message.seq) for message in messages))
