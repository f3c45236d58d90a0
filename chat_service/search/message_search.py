"""The searches that REST asks for."""

import time
from collections.abc import Sequence

from chat_service import metrics
from chat_service.rooms.room import Room
from chat_service.search.global_search import GlobalSearch
from chat_service.search.index_store import IndexStore
from chat_service.search.page_reader import Wanted
from chat_service.search.room_search import Hits, RoomSearch
from chat_service.search.words import needles_of
from shared.commands.chat_queries import SearchJoinedRooms, SearchRoom


class MessageSearch:
    """Searches rooms that the caller may see. Methods raise Unavailable.

    The caller must have brought the rooms up to their newest seqs and times.
    """

    def __init__(self, store: IndexStore) -> None:
        self._store = store

    async def in_room(self, room: Room, query: SearchRoom) -> Hits:
        """Search one room. A query without a word finds nothing. Raises NOT_FOUND for a `before` of another room."""
        needles = needles_of(query.q)
        if not needles:
            return Hits([], None)
        started_s = time.perf_counter()
        search = RoomSearch(self._store, room, Wanted(needles, query.user_id), query.limit)
        hits = await search.run(query.before)
        metrics.SEARCH_SECONDS.labels("room").observe(time.perf_counter() - started_s)
        return hits

    async def in_rooms(self, rooms: Sequence[Room], query: SearchJoinedRooms) -> Hits:
        """Search several rooms. Raises NOT_FOUND if `before` is not a message."""
        needles = needles_of(query.q)
        if not needles:
            return Hits([], None)
        started_s = time.perf_counter()
        hits = await GlobalSearch(self._store, rooms, Wanted(needles), query.limit).run(query.before)
        metrics.SEARCH_SECONDS.labels("joined").observe(time.perf_counter() - started_s)
        return hits
