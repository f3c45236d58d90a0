"""The search in all rooms of a user, merged by time.

The rooms are in a heap, by the time of the newest unsearched message. Each round loads the next pages of up to 64 rooms
in one query and searches them 8 rooms at a time until the budget is spent. A hit is final once it is newer than every
unsearched message. The search ends when there are enough such hits, or when the budget is spent and the upper bound on
the times of unsearched messages is below the one at the start of this call, so that a caller who continues always
advances.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from chat_service.rooms.message import Message
from chat_service.rooms.room import Room
from chat_service.search.index_store import IndexStore
from chat_service.search.page_reader import PageReader, Wanted
from chat_service.search.room_search import Hits, is_hit
from chat_service.search.tree import Candidate, Page, PageWalk
from shared.errors import Refusal
from shared.ids import Prefix, dated_id, made_at_ms

BUDGET = 16  # pages, in 40 ms: each room costs further database calls
ROOMS_PER_ROUND = 64
ROOMS_AT_ONCE = 8  # searched before the budget is checked: each may have 128 messages without an index row
PAGES_PER_READ_MAX = 16
CLOCK_MARGIN_MS = (
    100  # owners of a room, one after another, read the clock of the database with an error of milliseconds
)
NEVER_MS = 2**53


class SearchPosition(NamedTuple):
    """The place of a message among those of all rooms, before which a search continues."""

    at_ms: int
    id: str


@dataclass(order=True, slots=True)
class _Room:
    """A room with unsearched pages, whose messages are older than `left_ms`. Sorts by that, newest first."""

    minus_left_ms: int
    room: Room = field(compare=False)
    walk: PageWalk = field(compare=False)

    @property
    def left_ms(self) -> int:
        return -self.minus_left_ms


class GlobalSearch:
    """One search in several rooms. The caller must have brought the rooms up to their newest seqs and times."""

    def __init__(self, store: IndexStore, rooms: Sequence[Room], wanted: Wanted, limit: int) -> None:
        self._store = store
        self._rooms = rooms
        self._wanted = wanted
        self._limit = limit
        self._reader = PageReader(store, wanted)
        self._candidates: list[Candidate] = []
        self._checked: dict[str, Message | None] = {}
        self._before = SearchPosition(NEVER_MS, "")

    async def run(self, before: str | None) -> Hits:
        """Return the newest messages before the message `before`. Raises NOT_FOUND if it is not a message id."""
        if before is not None:
            self._before = await self._position_of(before)
        # + 1: messages of the same millisecond with lower ids also come before it
        newest_ms = self._before.at_ms + bool(self._before.id)
        heap = [
            _Room(-min(room.active_at_ms + CLOCK_MARGIN_MS, newest_ms), room, PageWalk(room.last_seq))
            for room in self._rooms
            if room.last_seq
        ]
        heapify(heap)
        pages = 1  # of a room in one read
        start_ms = heap[0].left_ms if heap else 0
        while heap and not self._is_spent(heap[0].left_ms, start_ms):
            await self._look_at_some(heap, pages)
            pages = min(2 * pages, PAGES_PER_READ_MAX)
            if len(await self._hits(_left_ms(heap))) > self._limit:
                break
        return await self._result(_left_ms(heap))

    async def _position_of(self, before: str) -> SearchPosition:
        """Return the place of a message. `next` of an earlier search may be a synthetic id that only encodes a time."""
        place = (await self._store.places([before])).get(before)
        if place is not None:
            return SearchPosition(place[2], before)
        try:
            return SearchPosition(made_at_ms(before), "")
        except ValueError:
            raise Refusal.not_found("message") from None

    def _is_spent(self, left_ms: int, start_ms: int) -> bool:
        return self._reader.spent >= BUDGET and left_ms < start_ms

    async def _look_at_some(self, heap: list[_Room], pages: int) -> None:
        """Read the next page of the first rooms; if there are few rooms, prefetch the pages after it."""
        some = [heappop(heap) for _ in range(min(ROOMS_PER_ROUND, len(heap)))]
        ahead = max(min(pages, ROOMS_PER_ROUND // len(some)), 1)
        if any(not self._reader.has(one.room.id, one.walk.next_pages(1)[0]) for one in some):
            await self._reader.load([(one.room.id, page) for one in some for page in one.walk.next_pages(ahead)])
        for start in range(0, len(some), ROOMS_AT_ONCE):
            few = some[start : start + ROOMS_AT_ONCE]
            if start and self._reader.spent >= BUDGET:
                for one in some[start:]:
                    heappush(heap, one)
                return
            lefts = await asyncio.gather(*(self._look_at(one, one.walk.pop()) for one in few))
            for one, left_ms in zip(few, lefts, strict=True):
                if not one.walk.is_over:
                    heappush(heap, _Room(-min(left_ms, one.left_ms), one.room, one.walk))

    async def _look_at(self, one: _Room, page: Page) -> int:
        """Read a page. Return an upper bound (ms) on the time of the room's unsearched messages."""
        stored = self._reader.stored(one.room.id, page)
        if stored is not None and stored.first_at_ms > self._before.at_ms + CLOCK_MARGIN_MS:
            return one.left_ms
        if page.level > 0:
            if self._reader.may_skip(one.room.id, page) and stored is not None:
                return stored.first_at_ms + CLOCK_MARGIN_MS
            one.walk.expand(page)
            return one.left_ms
        looked = await self._reader.look(one.room.id, page, one.room.last_seq)
        self._candidates += (each for each in looked.found if (each.at_ms, each.id) < self._before)
        return looked.first_at_ms + CLOCK_MARGIN_MS if looked.first_id else one.left_ms

    async def _hits(self, left_ms: int) -> list[Message]:
        """Return the hits newer than every unsearched message, newest first: at most one more than wanted."""
        final = sorted((one for one in self._candidates if one.at_ms >= left_ms), reverse=True)
        hits: list[Message] = []
        for start in range(0, len(final), self._limit + 1):
            some = [one.id for one in final[start : start + self._limit + 1]]
            unknown = [id_ for id_ in some if id_ not in self._checked]
            if unknown:
                messages = await self._store.messages(unknown)
                self._checked |= {id_: messages.get(id_) for id_ in unknown}
            found = (self._checked[id_] for id_ in some)
            hits += [one for one in found if one is not None and is_hit(one, self._wanted)]
            if len(hits) > self._limit:
                return hits[: self._limit + 1]
        return hits

    async def _result(self, left_ms: int) -> Hits:
        hits = await self._hits(left_ms)
        if len(hits) > self._limit:
            return Hits(hits[: self._limit], hits[self._limit - 1].id)
        return Hits(hits, dated_id(Prefix.MESSAGE, left_ms, "search") if left_ms else None)


def _left_ms(heap: Sequence[_Room]) -> int:
    """Return an upper bound (ms) on the time of all unsearched messages; 0 if there are none."""
    return heap[0].left_ms if heap else 0
