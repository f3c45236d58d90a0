"""The search in one room: newest page first, until enough messages are found or the budget of a call is spent."""

from collections.abc import Sequence
from typing import NamedTuple

from chat_service.rooms.message import Message
from chat_service.rooms.room import Room
from chat_service.search.index_store import IndexStore
from chat_service.search.page_reader import PageReader, Wanted
from chat_service.search.tree import Candidate, Page, PageWalk
from chat_service.search.words import matches
from shared.errors import Refusal

BUDGET = 24  # pages, or 768 messages that have none: 30 ms
PAGES_PER_READ_MAX = 16


class Hits(NamedTuple):
    """Found messages, newest first. `next_before` is set if older messages remain unsearched."""

    messages: Sequence[Message]
    next_before: str | None


def is_hit(message: Message, wanted: Wanted) -> bool:
    """Return whether a message, as it is now, is wanted."""
    return wanted.author in (None, message.user_id) and matches(wanted.needles, message.text)


class RoomSearch:
    """One search in one room. The caller must have brought the room up to its newest seq."""

    def __init__(self, store: IndexStore, room: Room, wanted: Wanted, limit: int) -> None:
        self._store = store
        self._room = room
        self._wanted = wanted
        self._limit = limit
        self._reader = PageReader(store, wanted)
        self._found: list[Message] = []
        self._unchecked: list[Candidate] = []  # newest first
        self._looked_at_id = ""

    async def run(self, before: str | None) -> Hits:
        """Return the newest messages before the message `before`. Raises NOT_FOUND if it is not in this room."""
        newest_seq = self._room.last_seq if before is None else await self._seq_of(before) - 1
        walk = PageWalk(newest_seq)
        count = 2
        while not walk.is_over and len(self._found) < self._limit and not self._is_spent:
            await self._look_at_some(walk, newest_seq, count)
            await self._check()
            count = min(2 * count, PAGES_PER_READ_MAX)
        if len(self._found) == self._limit:
            is_more = self._unchecked or not walk.is_over
            return Hits(self._found, self._found[-1].id if is_more else None)
        return Hits(self._found, None if walk.is_over else self._looked_at_id)

    @property
    def _is_spent(self) -> bool:
        """Return whether to stop. The search never stops before it has a message id to return as `next`."""
        return self._reader.spent >= BUDGET and bool(self._looked_at_id)

    async def _seq_of(self, message_id: str) -> int:
        place = (await self._store.places([message_id])).get(message_id)
        if place is None or place[0] != self._room.id:
            raise Refusal.not_found("message")
        return place[1]

    async def _look_at_some(self, walk: PageWalk, newest_seq: int, count: int) -> None:
        """Read the next pages, until one has to be replaced by those below it, or there are enough candidates."""
        pages = walk.next_pages(count)
        await self._reader.load([(self._room.id, page) for page in pages])
        for page in pages:
            walk.pop()
            if page.level > 0:
                if not self._skip(page):
                    walk.expand(page)
                    return
                continue
            looked = await self._reader.look(self._room.id, page, newest_seq)
            self._unchecked += looked.found
            self._looked_at_id = looked.first_id or self._looked_at_id
            if self._is_spent or len(self._unchecked) >= self._limit:
                return

    def _skip(self, page: Page) -> bool:
        if not self._reader.may_skip(self._room.id, page):
            return False
        stored = self._reader.stored(self._room.id, page)
        if stored is not None:
            self._looked_at_id = stored.first_id
        return True

    async def _check(self) -> None:
        """Check candidates against the messages as they are now, until enough are found."""
        while self._unchecked and len(self._found) < self._limit:
            some = self._unchecked[: self._limit - len(self._found)]
            del self._unchecked[: len(some)]
            messages = await self._store.messages([one.id for one in some])
            found = (messages.get(one.id) for one in some)
            self._found += [one for one in found if one is not None and is_hit(one, self._wanted)]
