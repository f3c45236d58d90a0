"""The rooms that a partition holds in memory, and their loading.

A room's state is its record plus the later entries of its log. Such an entry may never have been delivered, because
its owner died first: `on_found` delivers it again, and gateways drop repeats by their rev.

After reading a log in order to decide, check the partition's term. If there is a newer owner, a command decided here
could overtake one decided there, and the order of a sender would be lost.

Bound: 5,000 rooms, least recently used evicted first; a room's members are dropped when they exceed 20,000.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from chat_service.people.presence_record import PresenceRecord, presence_view
from chat_service.people.presence_store import PresenceStore
from chat_service.people.profiles import Profiles
from chat_service.rooms.change_frames import current_after
from chat_service.rooms.decision import RoomState
from chat_service.rooms.log import LogEntry, member_of
from chat_service.rooms.message import RecentMessages
from chat_service.rooms.requirements import creator_needed, heirs_needed, messages_of, requirements_of, users_of
from chat_service.rooms.room import Room, RoomType
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.recent_read import RecentRead
from chat_service.storage.repair import project
from chat_service.storage.room_store import RoomStore
from shared.commands.chat import AnyRoomCommand, DeleteMessage, React, SendDirect, SendMessage, SubscribeRoom

ROOMS_MAX = 5_000
MEMBERS_PER_ROOM_MAX = 20_000


class RoomStores(NamedTuple):
    """The stores of a room's state, which the partition also writes."""

    rooms: RoomStore
    messages: MessageStore
    room_log: LogStore
    presence: PresenceStore
    profiles: Profiles
    active_now: RecentRead[str, int]


class RoomCache:
    """Loads the state that commands need, and keeps it while this process owns the partition.

    `check_term` raises StaleOwner if another process owns the partition now.
    """

    def __init__(
        self,
        stores: RoomStores,
        check_term: Callable[[], Awaitable[None]],
        on_found: Callable[[LogEntry, Room], None],
    ) -> None:
        self._stores = stores
        self._check_term = check_term
        self._on_found = on_found
        self._recent = RecentMessages()
        self._states: OrderedDict[str, RoomState] = OrderedDict()  # most recently used last
        self._dropped: dict[str, int] = {}  # the last committed rev of dropped rooms; recent messages are kept

    def __len__(self) -> int:
        return len(self._states)

    def drop(self, room_ids: Collection[str]) -> None:
        """Drop these rooms, and the recent messages of their batch: memory and log may differ after a failed commit."""
        self._recent.forget_uncommitted()
        for room_id in room_ids:
            if (state := self._states.pop(room_id, None)) is not None:
                self._dropped[room_id] = state.committed_rev
        while len(self._dropped) > ROOMS_MAX:
            self._recent.forget_room(oldest := next(iter(self._dropped)))
            del self._dropped[oldest]

    def release(self, states: Mapping[str, RoomState]) -> None:
        """Clear the state that was loaded only for the committed batch, and shrink to the bounds."""
        self._recent.keep_uncommitted()
        for state in states.values():
            state.end_batch()
        while len(self._states) > ROOMS_MAX:
            self._states.popitem(last=False)
        for state in states.values():
            if len(state.members) > MEMBERS_PER_ROOM_MAX:
                state.members.clear()

    async def load(self, commands: list[AnyRoomCommand], *, look_up: Collection[str]) -> dict[str, RoomState]:
        """Return the states of the commands' rooms, with everything that the commands need.

        `look_up` holds the ids of commands to look up in the log: those that may have made an entry before, and those
        that may repeat a message. Raises Unavailable and StaleOwner.
        """
        room_ids = {command.room_id for command in commands}
        unknown = [room_id for room_id in room_ids if room_id not in self._states]
        if unknown:
            await self._load_rooms(unknown)
        states = {room_id: self._states[room_id] for room_id in room_ids}
        for room_id in room_ids:
            self._states.move_to_end(room_id)
        callers = {command.caller.user_id for command in commands if requirements_of(command).profile}
        await self._stores.profiles.load(callers)
        authors = await self._load_messages(commands, states)
        await self._load_members(commands, states, authors)
        await self._load_heirs(commands, states)
        await self._load_active_now(commands, states)
        stored = [command for command in commands if command.id in look_up or _may_repeat_old(command, states)]
        if stored:
            await self._load_stored(stored, states)
        return states

    async def _load_rooms(self, room_ids: list[str]) -> None:
        records = await self._stores.rooms.rooms(room_ids)
        unapplied = await asyncio.gather(
            *(self._stores.room_log.after(room_id, _rev_of(records.get(room_id))) for room_id in room_ids)
        )
        named = await self._stores.messages.named_in(entry for entries in unapplied for entry in entries)
        await self._check_term()
        for room_id, entries in zip(room_ids, unapplied, strict=True):
            room = records.get(room_id)
            if entries:
                room = await project(self._stores.rooms, self._stores.messages, room, entries)
                # deliver now: the records are written, so the next load will not find these entries
                for entry in current_after(entries, named):
                    self._on_found(entry, room)
            if room is not None and room.changed_rev > self._dropped.pop(room_id, room.rev):
                self._recent.forget_room(room_id)  # another owner has changed messages since
            self._states[room_id] = RoomState(room, recent=self._recent, committed_rev=_rev_of(room))
            self._states[room_id].members |= {
                effect.user_id: member_of(room_id, effect) for entry in entries for effect in entry.members
            }

    async def _load_messages(
        self, commands: list[AnyRoomCommand], states: dict[str, RoomState]
    ) -> set[tuple[str, str]]:
        """Load the messages that commands name, with the callers' reactions to them and the rooms' pins.

        Return the authors of messages to be deleted, by (room id, user id).
        """
        naming = [command for command in commands if messages_of(command)]
        if not naming:
            return set()
        store = self._stores.messages
        found = await store.by_id({message_id for command in naming for message_id in messages_of(command)})
        authors: set[tuple[str, str]] = set()
        for command in naming:
            for message_id in messages_of(command):
                message = found.get(message_id)
                is_here = message is not None and message.room_id == command.room_id
                states[command.room_id].messages[message_id] = message if is_here else None
                if message is not None and is_here and isinstance(command, DeleteMessage):
                    authors.add((command.room_id, message.user_id))
        reacting = [command for command in naming if isinstance(command, React)]
        reactions = {(one.message_id, one.caller.user_id, one.emoji): one.room_id for one in reacting}
        for key, mark in (await store.reactions(reactions)).items():
            states[reactions[key]].reactions[key] = mark
        pinned: dict[str, set[str]] = {}
        for command in naming:
            if requirements_of(command).pins:
                pinned.setdefault(command.room_id, set()).update(messages_of(command))
        for room_id, message_ids in pinned.items():
            states[room_id].pins |= await store.pin_marks(room_id, message_ids)
        return authors

    async def _load_members(
        self, commands: list[AnyRoomCommand], states: dict[str, RoomState], authors: set[tuple[str, str]]
    ) -> None:
        public = {
            room_id
            for room_id, state in states.items()
            if state.room is not None and state.room.type is RoomType.PUBLIC
        } - {command.room_id for command in commands if requirements_of(command).changes_type}
        wanted = {
            (command.room_id, user_id)
            for command in commands
            if not (requirements_of(command).open_in_public and command.room_id in public)
            for user_id in _named(command, states[command.room_id].room)
            if user_id not in states[command.room_id].members
        }
        wanted |= {key for key in authors if key[1] not in states[key[0]].members}
        if not wanted:
            return
        found = await self._stores.rooms.members([key for key in wanted if states[key[0]].room is not None])
        for room_id, user_id in wanted:
            states[room_id].members[user_id] = found.get((room_id, user_id))

    async def _load_heirs(self, commands: list[AnyRoomCommand], states: dict[str, RoomState]) -> None:
        """Load candidates to succeed a leaving creator. Cached memberships are current and are kept.

        Candidates are read after the room: if another owner has changed them meanwhile, this commit is refused.
        """
        by_room: dict[str, list[AnyRoomCommand]] = {}
        for command in commands:
            by_room.setdefault(command.room_id, []).append(command)
        for room_id, own in by_room.items():
            room = states[room_id].room
            if room is not None and (count := heirs_needed(own, room)):
                for member in await self._stores.rooms.heirs(room_id, count):
                    states[room_id].members.setdefault(member.user_id, member)

    async def _load_active_now(self, commands: list[AnyRoomCommand], states: dict[str, RoomState]) -> None:
        """Load the number of members online, and the presence of the users that commands name."""
        shown = {command.room_id for command in commands if requirements_of(command).active_now}
        if not shown:
            return
        changing = shown & {command.room_id for command in commands if not isinstance(command, SubscribeRoom)}
        naming = [command for command in commands if requirements_of(command).presence]
        named = {user_id for command in naming for user_id in users_of(command)}
        counts, recent, records = await asyncio.gather(
            self._stores.active_now.get(changing),
            self._stores.active_now.get(shown - changing, is_fresh=False),  # a storm counts each room once a second
            self._presence_of(named),
        )
        for room_id in shown:
            states[room_id].active_now = (counts if room_id in changing else recent).get(room_id, 0)
        for command in naming:
            for user_id in users_of(command):
                states[command.room_id].presence[user_id] = presence_view(user_id, records.get(user_id))

    async def _presence_of(self, user_ids: Collection[str]) -> dict[str, PresenceRecord]:
        return await self._stores.presence.records(user_ids) if user_ids else {}

    async def _load_stored(self, commands: list[AnyRoomCommand], states: dict[str, RoomState]) -> None:
        reacting = [command.id for command in commands if isinstance(command, React)]
        entries, shared, repeats, old_repeats = await asyncio.gather(
            self._stores.room_log.by_id([command.id for command in commands]),
            self._stores.room_log.by_shared_id(reacting),
            self._stores.room_log.by_client_id(_client_keys(commands)),
            self._stores.room_log.old_by_client_id(
                _client_keys(command for command in commands if _may_repeat_old(command, states))
            ),
        )
        found = [entry for entry in (*entries, *shared) if entry.room_id in states]
        for entry, shown in zip(found, await self._stores.messages.current(found), strict=True):
            states[entry.room_id].stored |= dict.fromkeys(entry.command_ids, entry)
            states[entry.room_id].shown[entry.id] = shown
        for message in [*repeats, *old_repeats]:
            states[message.room_id].repeats[message.user_id, message.client_message_id or ""] = message
            self._recent.remember(message)


def _named(command: AnyRoomCommand, room: Room | None) -> tuple[str, ...]:
    creator_id = None if room is None else creator_needed(command, room)
    return users_of(command) if creator_id is None else (*users_of(command), creator_id)


def _client_keys(commands: Iterable[AnyRoomCommand]) -> list[tuple[str, str, str]]:
    return [
        (command.room_id, command.caller.user_id, command.client_message_id)
        for command in commands
        if isinstance(command, SendMessage | SendDirect) and command.client_message_id is not None
    ]


def _may_repeat_old(command: AnyRoomCommand, states: Mapping[str, RoomState]) -> bool:
    """Return whether a send may repeat a message from before the log, which the log's index of client ids lacks.

    Only a room with `old_seq` has such messages. Messages that a killed process of 0.2 left without a room record were
    never visible.
    """
    if not isinstance(command, SendMessage | SendDirect) or command.client_message_id is None:
        return False
    room = states[command.room_id].room
    return room is not None and room.old_seq > 0


def _rev_of(room: Room | None) -> int:
    return 0 if room is None else room.rev
