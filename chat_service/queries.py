"""Reads: the lists of REST and the replays of gateways. Any replica answers, straight from the database."""

import asyncio
from collections.abc import Callable
from typing import assert_never

import msgspec

from chat_service.people.presence import Presence
from chat_service.rooms.entry_deliveries import controls_of, frame_of
from chat_service.rooms.log import LogEntry
from chat_service.rooms.message import message_frame, message_view
from chat_service.rooms.room import Member, Room, RoomType, may_see, member_view, room_view, words_of
from chat_service.search.message_search import MessageSearch
from chat_service.storage.log_store import LogStore
from chat_service.storage.room_store import RoomStore
from chat_service.storage.write_behind import BEHIND_MAX_MS, catch_up, may_be_behind
from shared.commands.chat import (
    AnyChatRequest,
    DirectMessagePosition,
    DirectRoom,
    EntryDeliveries,
    FoundMessages,
    GetPresence,
    GetRoom,
    ListMembers,
    ListMessages,
    ListRecentDirectMessages,
    ListRooms,
    MemberPage,
    MessagePage,
    RecentDirectMessages,
    ReplayedEntries,
    ReplayEntries,
    ReplayMessages,
    RoomPage,
    RoomView,
    SearchJoinedRooms,
    SearchRoom,
)
from shared.commands.command import REPLAY_MAX, REPLAY_MAX_BYTES, ReplayedFrames
from shared.errors import Refusal

ROOMS_AT_ONCE = 100
DIRECT_ROOMS_MAX = 5_000
DIRECT_MESSAGES_MAX = 50_000


class ChatQueryHandler:
    """Answers `AnyChatRequest`. Methods raise Refusal (NOT_FOUND for a room of others) and Unavailable."""

    def __init__(
        self,
        store: RoomStore,
        room_log: LogStore,
        presence: Presence,
        search: MessageSearch,
        clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._search = search
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
            case ListMessages():
                return await self._messages(query)
            case SearchRoom():
                return await self._search_room(query)
            case SearchJoinedRooms():
                return await self._search_joined_rooms(query)
            case ListMembers():
                return await self._members(query)
            case ReplayMessages():
                return await self._replay(query)
            case ReplayEntries():
                return await self._replay_entries(query)
            case ListRecentDirectMessages():
                return await self._recent_direct_messages(query)
            case GetPresence():
                return await self._presence.state(query.user_ids)
            case _:
                assert_never(query)

    async def _rooms(self, query: ListRooms) -> RoomPage:
        """Return the public rooms and the caller's own others, merged by activity.

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

    async def _visible(self, room_id: str, user_id: str) -> Room:
        room = (await self._store.rooms([room_id])).get(room_id)
        member = (await self._store.members([(room_id, user_id)])).get((room_id, user_id))
        if room is None or not may_see(room, member):
            raise Refusal.not_found("room")
        return room

    async def _room(self, query: GetRoom) -> RoomView:
        room = await self._visible(query.room_id, query.caller.user_id)
        return (await self._views(query.caller.user_id, [room]))[0]

    async def _messages(self, query: ListMessages) -> MessagePage:
        """Return a range of `seq`, which has no gaps: every page costs the same, however deep."""
        room = await self._visible(query.room_id, query.caller.user_id)
        await self._catch_up([room], {}, "")
        if query.after is not None:
            first = query.after + 1
            last = min(query.after + query.limit, room.last_seq)
            if query.before is not None:
                last = min(last, query.before - 1)
        else:
            newest = room.last_seq if query.before is None else min(query.before - 1, room.last_seq)
            last = newest - (query.page - 1) * query.limit
            first = last - query.limit + 1
        if last < 1 or last < first:
            return MessagePage(items=(), total=room.last_seq)
        found = await self._log.messages_between(room.id, max(first, 1), last)
        return MessagePage(items=tuple(message_view(message) for _, message in reversed(found)), total=room.last_seq)

    async def _search_room(self, query: SearchRoom) -> FoundMessages:
        """Search a room, and check permission again after the content was read."""
        room = await self._visible(query.room_id, query.caller.user_id)
        await self._catch_up([room], {}, "")
        found = await self._search.in_room(room, query)
        await self._visible(query.room_id, query.caller.user_id)
        return found

    async def _search_joined_rooms(self, query: SearchJoinedRooms) -> FoundMessages:
        """Search the rooms of a user, and leave out what is in rooms that the user left meanwhile."""
        user_id = query.caller.user_id
        found = await self._store.rooms(await self._store.room_ids_of(user_id))
        rooms = [room for room in found.values() if not room.deleted]
        for start in range(0, len(rooms), ROOMS_AT_ONCE):
            await self._catch_up(rooms[start : start + ROOMS_AT_ONCE], {}, "")
        hits = await self._search.in_rooms(rooms, query)
        members = await self._store.members({(item.chatroom_id, user_id) for item in hits.items})
        joined = {member.room_id for member in members.values() if member.is_joined}
        return msgspec.structs.replace(hits, items=tuple(item for item in hits.items if item.chatroom_id in joined))

    async def _members(self, query: ListMembers) -> MemberPage:
        await self._visible(query.room_id, query.caller.user_id)
        skip = (query.page - 1) * query.limit
        members, total = await self._store.member_page(query.room_id, skip, query.limit)
        state = await self._presence.state(tuple(member.user_id for member in members))
        items = (member_view(member, seen) for member, seen in zip(members, state.users, strict=True))
        return MemberPage(items=tuple(items), total=total)

    async def _replay(self, query: ReplayMessages) -> ReplayedFrames:
        last = min(query.through, query.after + REPLAY_MAX)
        found = await self._log.messages_between(query.room_id, query.after + 1, last)
        frames: list[msgspec.Raw] = []
        size_bytes = 0
        for _, message in found:
            frame = message_frame(message)
            size_bytes += len(frame)
            if frames and size_bytes > REPLAY_MAX_BYTES:
                break
            frames.append(msgspec.Raw(frame))
        revs = tuple(rev for rev, _ in found[: len(frames)])
        return ReplayedFrames(first=query.after + 1, frames=tuple(frames), revs=revs)

    async def _replay_entries(self, query: ReplayEntries) -> ReplayedEntries:
        """Return the entries of a gap, up to the first rev that a majority does not have yet."""
        through = min(query.through, query.after + REPLAY_MAX)
        found = await self._log.between(query.room_id, query.after, through)
        replayed: list[EntryDeliveries] = []
        size_bytes = 0
        for rev, entry in enumerate(found, query.after + 1):
            deliveries = _deliveries_of(entry)
            size_bytes += len(deliveries.frame)
            if entry.rev != rev or (replayed and size_bytes > REPLAY_MAX_BYTES):
                break
            replayed.append(deliveries)
        is_deleted = False
        if not replayed:
            room = (await self._store.rooms([query.room_id])).get(query.room_id)
            is_deleted = room is not None and room.deleted
        return ReplayedEntries(entries=tuple(replayed), is_deleted=is_deleted)

    async def _recent_direct_messages(self, query: ListRecentDirectMessages) -> RecentDirectMessages:
        marked_since_ms = query.since_ms - BEHIND_MAX_MS
        rooms = await self._store.direct_rooms_since(query.user_ids, marked_since_ms, DIRECT_ROOMS_MAX)
        found: list[DirectRoom] = []
        left = DIRECT_MESSAGES_MAX
        for start in range(0, len(rooms), ROOMS_AT_ONCE):
            some = rooms[start : start + ROOMS_AT_ONCE]
            reads = (self._log.places_since(room.id, room.rev - REPLAY_MAX, query.since_ms) for room in some)
            for room, places in zip(some, await asyncio.gather(*reads), strict=True):
                left -= len(places)
                if places and room.direct is not None and left >= 0:
                    positions = (
                        DirectMessagePosition(rev=place.rev, created_at_ms=place.created_at_ms) for place in places
                    )
                    found.append(DirectRoom(room_id=room.id, user_ids=room.direct, positions=tuple(positions)))
            if left < 0:
                break
        return RecentDirectMessages(rooms=tuple(found), is_whole=left >= 0 and len(rooms) < DIRECT_ROOMS_MAX)


def _activity(room: Room) -> tuple[int, str]:
    return room.active_at_ms, room.id


def _deliveries_of(entry: LogEntry) -> EntryDeliveries:
    controls = tuple((kind.value, data.decode()) for kind, data in controls_of(entry))
    return EntryDeliveries(rev=entry.rev, frame=frame_of(entry).decode(), controls=controls)
