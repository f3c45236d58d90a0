"""Reads: the lists of REST and the replays of gateways. Any replica answers, straight from the database."""

import asyncio
from collections.abc import Callable

import msgspec

from chat_service.message_queries import MessageQueryHandler, visible_room
from chat_service.people.presence import Presence
from chat_service.rooms.room import Member, Room, RoomType, member_view, room_view, words_of
from chat_service.search.message_search import MessageSearch
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.room_store import RoomStore
from chat_service.storage.write_behind import BEHIND_MAX_MS, catch_up, may_be_behind
from chat_service.unread import UnreadReader
from shared.commands.activity import CheckUnread, ListUnread, RoomsUnread
from shared.commands.chat_queries import (
    AnyChatRequest,
    DirectMessagePosition,
    DirectRoom,
    FoundMessages,
    GetPresence,
    GetRoom,
    ListMembers,
    ListRecentDirectMessages,
    ListRooms,
    MemberPage,
    RecentDirectMessages,
    RoomPage,
    SearchJoinedRooms,
    SearchRoom,
)
from shared.commands.chat_views import RoomView
from shared.commands.command import REPLAY_MAX
from shared.mongo import chunks

ROOMS_AT_ONCE = 100
DIRECT_ROOMS_MAX = 5_000
DIRECT_MESSAGES_MAX = 50_000


class ChatQueryHandler:
    """Answers `AnyChatRequest`.

    Methods raise Unavailable, and Refusal: NOT_FOUND for a room that the caller may not see, except replays and granted
    pins: the partition has granted access before the gateway asks.
    """

    def __init__(
        self,
        store: RoomStore,
        messages: MessageStore,
        room_log: LogStore,
        presence: Presence,
        search: MessageSearch,
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._messages = MessageQueryHandler(store, messages, room_log, clock_ms)
        self._search = search
        self._unread = UnreadReader(store, messages, room_log, clock_ms)
        self._log = room_log
        self._presence = presence
        self._clock_ms = clock_ms

    async def answer(self, query: AnyChatRequest) -> msgspec.Struct:
        """Return the reply to one query."""
        match query:
            case ListRooms():
                return await self._rooms(query)
            case GetRoom():
                return await self._room(query)
            case SearchRoom():
                return await self._search_room(query)
            case SearchJoinedRooms():
                return await self._search_joined_rooms(query)
            case ListMembers():
                return await self._members(query)
            case ListRecentDirectMessages():
                return await self._recent_direct_messages(query)
            case ListUnread():
                return RoomsUnread(counts=tuple(await self._unread.of_user(query.caller.user_id)))
            case CheckUnread():
                pairs = [(room_id, user_id) for user_id, room_id in query.pairs]
                return RoomsUnread(counts=tuple(await self._unread.of_pairs(pairs)))
            case GetPresence():
                return await self._presence.state(query.user_ids)
            case _:
                return await self._messages.answer(query)

    async def _rooms(self, query: ListRooms) -> RoomPage:
        """Return the public rooms, and the private and group rooms of which the caller is a member, merged by activity.

        Only a window of the public ones is read. The m rooms of the caller push a public room back by at most m places,
        so position n of the merged list is between n - m and n in the list of public rooms. The records,
        which lag by seconds, determine which rooms are on a page; the order on the page is exact.
        """
        words = words_of(query.q or "")
        if query.q and not words:
            return RoomPage(items=(), total=0)
        others = [kind.value for kind in RoomType if kind is not RoomType.PUBLIC and query.type in (None, kind)]
        own: list[Room] = []
        if others:
            room_ids = await self._store.room_ids_of(query.caller.user_id)
            own = await self._store.rooms_among(room_ids, others, words)
        skip = (query.page - 1) * query.limit
        window_starts = max(0, skip - len(own))
        public: list[Room] = []
        total = len(own)
        if query.type in (None, RoomType.PUBLIC):
            public, count = await self._store.public_rooms(words, window_starts, query.limit + len(own))
            total += count
        merged = sorted(own + public, key=_activity, reverse=True)
        page = merged[skip - window_starts :][: query.limit] if skip < total else []
        return RoomPage(items=tuple(await self._views(query.caller.user_id, page)), total=total)

    async def _views(self, user_id: str, rooms: list[Room]) -> list[RoomView]:
        if not rooms:
            return []
        members = await self._store.members([(room.id, user_id) for room in rooms])
        await self._catch_up(rooms, members, user_id)
        rooms = sorted(rooms, key=_activity, reverse=True)
        counts = await self._store.active_now([room.id for room in rooms])
        return [room_view(room, members.get((room.id, user_id)), counts.get(room.id, 0)) for room in rooms]

    async def _catch_up(self, rooms: list[Room], members: dict[tuple[str, str], Member], user_id: str) -> None:
        """Add stored messages that the records lack; see `write_behind`."""
        now_ms = self._clock_ms()
        recent = [room for room in rooms if may_be_behind(room, now_ms)]
        reads = (self._log.places_beyond(room.id, room.rev) for room in recent)
        for room, beyond in zip(recent, await asyncio.gather(*reads), strict=True):
            catch_up(room, members.get((room.id, user_id)), beyond)

    async def _room(self, query: GetRoom) -> RoomView:
        room = await visible_room(self._store, query.room_id, query.caller.user_id)
        return (await self._views(query.caller.user_id, [room]))[0]

    async def _search_room(self, query: SearchRoom) -> FoundMessages:
        """Search a room, and check permission again after the content was read."""
        user_id = query.caller.user_id
        room = await visible_room(self._store, query.room_id, user_id)
        await self._catch_up([room], {}, "")
        hits = await self._search.in_room(room, query)
        items = await self._messages.shown(user_id, hits.messages)
        await visible_room(self._store, query.room_id, user_id)
        return FoundMessages(items=items, next_before=hits.next_before)

    async def _search_joined_rooms(self, query: SearchJoinedRooms) -> FoundMessages:
        """Search the rooms of a user, and leave out messages of rooms that the user left meanwhile."""
        user_id = query.caller.user_id
        found = await self._store.rooms(await self._store.room_ids_of(user_id))
        rooms = [room for room in found.values() if not room.deleted]
        for some in chunks(rooms, ROOMS_AT_ONCE):
            await self._catch_up(list(some), {}, "")
        hits = await self._search.in_rooms(rooms, query)
        items = await self._messages.shown(user_id, hits.messages)
        members = await self._store.members({(item.chatroom_id, user_id) for item in items})
        joined = {member.room_id for member in members.values() if member.is_joined}
        return FoundMessages(
            items=tuple(item for item in items if item.chatroom_id in joined), next_before=hits.next_before
        )

    async def _members(self, query: ListMembers) -> MemberPage:
        await visible_room(self._store, query.room_id, query.caller.user_id)
        skip = (query.page - 1) * query.limit
        members, total = await self._store.member_page(query.room_id, skip, query.limit)
        state = await self._presence.state(tuple(member.user_id for member in members))
        items = (member_view(member, seen) for member, seen in zip(members, state.users, strict=True))
        return MemberPage(items=tuple(items), total=total)

    async def _recent_direct_messages(self, query: ListRecentDirectMessages) -> RecentDirectMessages:
        marked_since_ms = query.since_ms - BEHIND_MAX_MS
        rooms = await self._store.direct_rooms_since(query.user_ids, marked_since_ms, DIRECT_ROOMS_MAX)
        found: list[DirectRoom] = []
        left = DIRECT_MESSAGES_MAX
        for start in range(0, len(rooms), ROOMS_AT_ONCE):
            some = rooms[start : start + ROOMS_AT_ONCE]
            reads = (self._log.times_since(room.id, room.rev - REPLAY_MAX, query.since_ms) for room in some)
            for room, times in zip(some, await asyncio.gather(*reads), strict=True):
                left -= len(times)
                if times and room.direct is not None and left >= 0:
                    positions = (DirectMessagePosition(rev=rev, created_at_ms=at_ms) for rev, at_ms in times)
                    found.append(DirectRoom(room_id=room.id, user_ids=room.direct, positions=tuple(positions)))
            if left < 0:
                break
        return RecentDirectMessages(rooms=tuple(found), is_whole=left >= 0 and len(rooms) < DIRECT_ROOMS_MAX)


def _activity(room: Room) -> tuple[int, str]:
    return room.active_at_ms, room.id
