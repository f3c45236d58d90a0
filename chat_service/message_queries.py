"""Reads of messages: lists, single messages, reactions, pins, replays. All show the current state. Any replica answers.

A read fetches the content first and checks permission afterwards: a user who is removed in between must not see content
from after the removal. Replays and granted pins check no permission: the partition has granted access before the
gateway asks.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, assert_never

import msgspec

from chat_service.rooms.entry_deliveries import controls_of, frame_of, joined_frames_of
from chat_service.rooms.log import LogEntry
from chat_service.rooms.message import Message, message_frame, message_view
from chat_service.rooms.room import Room, may_see
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.room_store import RoomStore
from chat_service.storage.write_behind import catch_up, may_be_behind
from shared.commands.chat_queries import (
    EntryDeliveries,
    GetMessage,
    ListMessages,
    ListMessagesAround,
    ListPins,
    ListReactions,
    ListReplies,
    MessagePage,
    PinPage,
    ReactionPage,
    ReplayedEntries,
    ReplayEntries,
    ReplayMessages,
)
from shared.commands.chat_views import MessageView, PinView, ReactionView
from shared.commands.command import REPLAY_MAX, REPLAY_MAX_BYTES, ReplayedFrames
from shared.errors import Refusal
from shared.protocol.server_frames import UserProfile
from shared.times import to_iso

AnyMessageRequest = (
    ListMessages
    | ListMessagesAround
    | GetMessage
    | ListReplies
    | ListReactions
    | ListPins
    | ReplayMessages
    | ReplayEntries
)

T = TypeVar("T")


async def visible_room(rooms: RoomStore, room_id: str, user_id: str) -> Room:
    """Return a room as its record has it. Raises NOT_FOUND unless the user may see it."""
    room = (await rooms.rooms([room_id])).get(room_id)
    member = (await rooms.members([(room_id, user_id)])).get((room_id, user_id))
    if room is None or not may_see(room, member):
        raise Refusal.not_found("room")
    return room


class MessageQueryHandler:
    """Answers `AnyMessageRequest`.

    Methods raise Unavailable, and Refusal: NOT_FOUND for a room that the caller may not see, except replays and granted
    pins: the partition has granted access before the gateway asks.
    """

    def __init__(
        self, rooms: RoomStore, messages: MessageStore, room_log: LogStore, clock_ms: Callable[[], int]
    ) -> None:
        self._rooms = rooms
        self._messages = messages
        self._log = room_log
        self._clock_ms = clock_ms

    async def answer(self, query: AnyMessageRequest) -> msgspec.Struct:
        """Return the reply to one query."""
        match query:
            case ListMessages():
                return await self._list(query)
            case ListMessagesAround():
                return await self._around(query)
            case GetMessage():
                return await self._get(query)
            case ListReplies():
                return await self._replies(query)
            case ListReactions():
                return await self._reactions(query)
            case ListPins():
                return await self._pins(query)
            case ReplayMessages():
                return await self._replay(query)
            case ReplayEntries():
                return await self._replay_entries(query)
            case _:
                assert_never(query)

    # Lists ----------------------------------------------------------------------------------------------------------

    async def _list(self, query: ListMessages) -> MessagePage:
        """Return a range of `seq`, which has no gaps, so every page costs the same at any depth."""
        room = await self._room_with_head(query.room_id)
        if query.after is not None:
            first = query.after + 1
            last = min(query.after + query.limit, room.last_seq)
            if query.before is not None:
                last = min(last, query.before - 1)
        else:
            newest = room.last_seq if query.before is None else min(query.before - 1, room.last_seq)
            last = newest - (query.page - 1) * query.limit
            first = last - query.limit + 1
        return await self._range(room, query.caller.user_id, first, last)

    async def _around(self, query: ListMessagesAround) -> MessagePage:
        """Return the messages around a seq; near the first or last message, the other side is filled up."""
        room = await self._room_with_head(query.room_id)
        last = min(query.seq + (query.limit - 1) // 2, room.last_seq)
        first = max(last - query.limit + 1, 1)
        return await self._range(room, query.caller.user_id, first, min(first + query.limit - 1, room.last_seq))

    async def _range(self, room: Room, user_id: str, first: int, last: int) -> MessagePage:
        items: tuple[MessageView, ...] = ()
        if last >= max(first, 1):
            found = await self._log.messages_between(room.id, max(first, 1), last)
            items = await self.shown(user_id, [message for _, message in reversed(found)])
        await visible_room(self._rooms, room.id, user_id)
        return MessagePage(items=items, total=room.last_seq)

    async def _get(self, query: GetMessage) -> MessageView:
        message = await self._message(query.room_id, query.message_id)
        views = await self.shown(query.caller.user_id, message)
        await visible_room(self._rooms, query.room_id, query.caller.user_id)
        return _only(views)

    async def _replies(self, query: ListReplies) -> MessagePage:
        replied_to = await self._message(query.room_id, query.message_id)
        messages, total = await self._messages.replies(query.message_id, _skip(query), query.limit)
        items = await self._views(query.caller.user_id, messages)
        await visible_room(self._rooms, query.room_id, query.caller.user_id)
        _only(replied_to)
        return MessagePage(items=items, total=total)

    async def _reactions(self, query: ListReactions) -> ReactionPage:
        message = await self._message(query.room_id, query.message_id)
        found, total = await self._messages.reaction_page(query.message_id, query.emoji, _skip(query), query.limit)
        members = await self._rooms.members([(query.room_id, one.user_id) for one in found])
        await visible_room(self._rooms, query.room_id, query.caller.user_id)
        if _only(message).is_deleted:
            return ReactionPage(items=(), total=0)
        profiles = {user_id: member.profile for (_, user_id), member in members.items()}
        items = (
            ReactionView(
                user_id=one.user_id,
                user=profiles.get(one.user_id, UserProfile()),
                emoji=one.emoji,
                at=to_iso(one.at_ms),
            )
            for one in found
        )
        return ReactionPage(items=tuple(items), total=total)

    async def _pins(self, query: ListPins) -> PinPage:
        pins = await self._messages.pins(query.room_id)
        if query.message_id is not None:
            pins = [one for one in pins if one.message_id == query.message_id]
        page = pins[_skip(query) :][: query.limit]
        messages = await self._messages.messages([one.message_id for one in page])
        known = [one for one in page if one.message_id in messages]
        views = await self._views(query.caller.user_id, [messages[one.message_id] for one in known])
        if not query.is_granted:
            await visible_room(self._rooms, query.room_id, query.caller.user_id)
        items = (
            PinView(message=view, by=one.user_id, at=to_iso(one.at_ms)) for one, view in zip(known, views, strict=True)
        )
        return PinPage(items=tuple(items), total=len(pins))

    # Steps that several lists share ---------------------------------------------------------------------------------

    async def _room_with_head(self, room_id: str) -> Room:
        """Return a room with its newest seq, which its record may lack for seconds. Raises NOT_FOUND."""
        room = (await self._rooms.rooms([room_id])).get(room_id)
        if room is None:
            raise Refusal.not_found("room")
        if may_be_behind(room, self._clock_ms()):
            catch_up(room, None, await self._log.places_beyond(room.id, room.rev))
        return room

    async def _message(self, room_id: str, message_id: str) -> list[Message]:
        """Return a message of the room, or nothing."""
        message = (await self._messages.by_id([message_id])).get(message_id)
        return [message] if message is not None and message.room_id == room_id else []

    async def shown(self, user_id: str, messages: Sequence[Message]) -> tuple[MessageView, ...]:
        """Return messages as a user sees them in REST, with the current texts of the messages that they reply to."""
        return await self._views(user_id, await self._messages.with_previews(messages))

    async def _views(self, user_id: str, messages: Sequence[Message]) -> tuple[MessageView, ...]:
        """Return messages as a user sees them in REST: reactions of theirs are `mine`."""
        kinds = [(message.id, user_id, count.emoji) for message in messages for count in message.reactions]
        marks = await self._messages.reactions(kinds) if kinds else {}
        mine = {key for key, mark in marks.items() if mark.is_active}
        return tuple(message_view(message) if not mine else _with_mine(message, user_id, mine) for message in messages)

    # Replays --------------------------------------------------------------------------------------------------------

    async def _replay(self, query: ReplayMessages) -> ReplayedFrames:
        last = min(query.through, query.after + REPLAY_MAX)
        found = await self._log.messages_between(query.room_id, query.after + 1, last)
        messages = await self._messages.with_previews([message for _, message in found])
        frames: list[msgspec.Raw] = []
        size_bytes = 0
        for message in messages:
            frame = message_frame(message)
            size_bytes += len(frame)
            if frames and size_bytes > REPLAY_MAX_BYTES:
                break
            frames.append(msgspec.Raw(frame))
        revs = tuple(rev for rev, _ in found[: len(frames)])
        return ReplayedFrames(first=query.after + 1, frames=tuple(frames), revs=revs)

    async def _replay_entries(self, query: ReplayEntries) -> ReplayedEntries:
        """Return the entries of a gap: up to 1,000, up to 8 MB, and up to the first rev that a majority lacks."""
        through = min(query.through, query.after + REPLAY_MAX)
        found = await self._messages.current(await self._log.between(query.room_id, query.after, through))
        deliveries = [_deliveries_of(entry) for entry in found]
        is_deleted = False
        if not found or found[0].rev > query.after + 1:
            room = (await self._rooms.rooms([query.room_id])).get(query.room_id)
            is_deleted = room is not None and room.deleted
            if room is not None and not is_deleted:
                deliveries = [*await self._old_deliveries(room, query.after, through), *deliveries]
        replayed: list[EntryDeliveries] = []
        size_bytes = 0
        for rev, item in enumerate(deliveries, query.after + 1):
            size_bytes += sum(map(len, item.frames))
            if item.rev != rev or (replayed and size_bytes > REPLAY_MAX_BYTES):
                break
            replayed.append(item)
        return ReplayedEntries(entries=tuple(replayed), is_deleted=is_deleted)

    async def _old_deliveries(self, room: Room, after: int, through: int) -> list[EntryDeliveries]:
        """Return the messages from before the log as its entries: their rev is their seq."""
        last = min(through, room.old_seq)
        found = await self._log.messages_between(room.id, after + 1, last) if last > after else []
        return [EntryDeliveries(rev=message.seq, frame=message_frame(message).decode()) for _, message in found]


def _only(found: Sequence[T]) -> T:
    """Return the one message that was looked for. Raises NOT_FOUND."""
    if not found:
        raise Refusal.not_found("message")
    return found[0]


def _skip(query: ListReplies | ListReactions | ListPins) -> int:
    return (query.page - 1) * query.limit


def _with_mine(message: Message, user_id: str, mine: set[tuple[str, str, str]]) -> MessageView:
    counts = (
        msgspec.structs.replace(count, mine=(message.id, user_id, count.emoji) in mine) for count in message.reactions
    )
    return message_view(msgspec.structs.replace(message, reactions=tuple(counts)))


def _deliveries_of(entry: LogEntry) -> EntryDeliveries:
    controls = tuple((kind.value, data.decode()) for kind, data in controls_of(entry))
    joined = tuple(frame.decode() for frame in joined_frames_of(entry))
    return EntryDeliveries(rev=entry.rev, frame=frame_of(entry).decode(), controls=controls, joined=joined)
