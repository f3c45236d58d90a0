"""The rooms that a partition holds in memory, and their loading.

Bound: 5,000 rooms, the least recently used leave first; a room with over 20,000 members in memory drops them.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping

from chat_service import metrics
from chat_service.decision import RoomState
from chat_service.group_read import GroupRead
from chat_service.messages import RecentMessages
from chat_service.presence import presence_view
from chat_service.presence_store import PresenceRecord, PresenceStore
from chat_service.profiles import Profiles
from chat_service.requirements import requirements_of, users_of
from chat_service.rooms import RoomType
from chat_service.store import RoomStore
from chat_service.write_behind import Post
from shared.commands.chat import RoomCommands, SendDirect, SendMessage
from shared.errors import Unavailable

ROOMS_MAX = 5_000
MEMBERS_PER_ROOM_MAX = 20_000


class RoomCache:
    """Loads the state that commands need, and keeps it until another replica may have written it.

    `note_unwritten` receives the messages that are stored but missing from their room's record.
    """

    def __init__(
        self,
        store: RoomStore,
        presence: PresenceStore,
        profiles: Profiles,
        active_now: GroupRead[str, int],
        note_unwritten: Callable[[Post], None],
    ) -> None:
        self._store = store
        self._presence = presence
        self._profiles = profiles
        self._active_now = active_now
        self._note_unwritten = note_unwritten
        self._recent = RecentMessages()
        self._states: OrderedDict[str, RoomState] = OrderedDict()  # most recently used last
        self._generation = 0

    @property
    def generation(self) -> int:
        """Return a number that grows with every `forget`: what was read before that must not be remembered."""
        return self._generation

    def forget(self) -> None:
        """Drop everything: another replica may write these rooms meanwhile."""
        self._generation += 1
        self._states.clear()
        self._recent.clear()

    def drop(self, room_ids: Collection[str]) -> None:
        """Drop these rooms, and all recent messages: memory and disk may differ after a failed commit."""
        for room_id in room_ids:
            self._states.pop(room_id, None)
        self._recent.clear()

    def release(self, states: Mapping[str, RoomState]) -> None:
        """Clear what was loaded for one batch only, and shrink to the bounds."""
        for state in states.values():
            state.stored.clear()
            state.seen.clear()
        while len(self._states) > ROOMS_MAX:
            self._states.popitem(last=False)
        for state in states.values():
            if len(state.members) > MEMBERS_PER_ROOM_MAX:
                state.members.clear()
        metrics.CACHED_ROOMS.set(len(self._states))

    async def load(self, commands: list[RoomCommands], *, from_disk: bool) -> dict[str, RoomState]:
        """Return the states of the commands' rooms, with all that the commands need. Raises Unavailable.

        `from_disk` reads the rooms and their stored messages anew: an earlier try may have taken effect.
        """
        room_ids = {command.room_id for command in commands}
        if from_disk:
            for room_id in room_ids:
                self._states.pop(room_id, None)
        unknown = [room_id for room_id in room_ids if room_id not in self._states]
        if unknown:
            await self._load_rooms(unknown)
        states = {room_id: self._states[room_id] for room_id in room_ids}
        for room_id in room_ids:
            self._states.move_to_end(room_id)
        callers = {command.caller.user_id for command in commands if requirements_of(command).profile}
        await asyncio.gather(
            self._profiles.load(callers),
            self._load_members(commands, states),
            self._load_active_now(commands, states),
        )
        if from_disk:
            await self._load_stored(commands, states)
        return states

    async def _load_rooms(self, room_ids: list[str]) -> None:
        generation = self._generation
        rooms = await self._store.rooms(room_ids)
        # Messages are ahead of their room's record until the write-behind; member counts may be wrong after a crash.
        beyond = await asyncio.gather(*(self._store.recount(room) for room in rooms.values()))
        for post in itertools.chain.from_iterable(beyond):
            self._note_unwritten(post)
        if generation != self._generation:
            raise Unavailable("the connection was lost while loading")
        for room_id in room_ids:
            self._states[room_id] = RoomState(rooms.get(room_id), recent=self._recent)

    async def _load_members(self, commands: list[RoomCommands], states: dict[str, RoomState]) -> None:
        public = {
            room_id
            for room_id, state in states.items()
            if state.room is not None and state.room.type is RoomType.PUBLIC
        } - {command.room_id for command in commands if requirements_of(command).changes_type}
        wanted = {
            (command.room_id, user_id)
            for command in commands
            if not (requirements_of(command).open_in_public and command.room_id in public)
            for user_id in users_of(command)
            if user_id not in states[command.room_id].members
        }
        if not wanted:
            return
        found = await self._store.members([key for key in wanted if states[key[0]].room is not None])
        for room_id, user_id in wanted:
            states[room_id].members[user_id] = found.get((room_id, user_id))

    async def _load_active_now(self, commands: list[RoomCommands], states: dict[str, RoomState]) -> None:
        """Load how many members are online, and the presence of the users that commands name."""
        shown = {command.room_id for command in commands if requirements_of(command).active_now}
        if not shown:
            return
        naming = [command for command in commands if requirements_of(command).presence]
        named = {user_id for command in naming for user_id in users_of(command)}
        counts, records = await asyncio.gather(self._active_now.get(shown), self._presence_of(named))
        for room_id in shown:
            states[room_id].active_now = counts.get(room_id, 0)
        for command in naming:
            for user_id in users_of(command):
                states[command.room_id].seen[user_id] = presence_view(user_id, records.get(user_id))

    async def _presence_of(self, user_ids: Collection[str]) -> dict[str, PresenceRecord]:
        return await self._presence.records(user_ids) if user_ids else {}

    async def _load_stored(self, commands: list[RoomCommands], states: dict[str, RoomState]) -> None:
        sends = [command for command in commands if isinstance(command, SendMessage | SendDirect)]
        if not sends:
            return
        by_id, by_client_id = await asyncio.gather(
            self._store.messages_by_id([send.message_id for send in sends]),
            self._store.messages_by_client_id(
                (send.room_id, send.caller.user_id, send.client_message_id)
                for send in sends
                if send.client_message_id is not None
            ),
        )
        for message in by_id:
            if message.room_id in states:
                states[message.room_id].stored[message.id] = message
        for message in by_client_id:
            self._recent.remember(message)
