"""Users' profiles: the token's claims, or the last `user.updated` event if it is newer than the token.

One replica stores the event (`chat.users`). Every replica also receives it on a queue of its own and updates its
memory.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Annotated

import msgspec

from chat_service.profile_store import ProfileStore, StoredProfile
from shared.bus.consumer import Line
from shared.bus.events import USER_UPDATED, decode_event, event_time_ms
from shared.bus.topology import EVENTS, QueueSpec
from shared.commands.command import Caller
from shared.errors import Malformed, Refusal
from shared.protocol.server_frames import UserProfile
from shared.protocol.validation import Id, convert

REMEMBERED_MAX = 50_000
QUEUE_EXPIRES_MS = 60_000

Name = Annotated[str, msgspec.Meta(max_length=200)]


class UserUpdate(msgspec.Struct, frozen=True, rename="camel"):
    """The data of `user.updated`; absent fields stay unchanged."""

    user_id: Id
    first_name: Name | None = None
    last_name: Name | None = None
    avatar: Annotated[str, msgspec.Meta(max_length=2000)] | None = None


class Profiles:
    """Profiles by user. Bound: 50,000 in memory."""

    def __init__(self, store: ProfileStore, node_id: str, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._clock_ms = clock_ms
        self._remembered: OrderedDict[str, StoredProfile | None] = OrderedDict()
        self.queue = QueueSpec(f"chat.users.{node_id}", {"x-expires": QUEUE_EXPIRES_MS}, ((EVENTS, USER_UPDATED),))

    async def load(self, user_ids: Collection[str]) -> None:
        """Make the profiles of these users ready for `of`. Raises Unavailable."""
        unknown = [user_id for user_id in user_ids if user_id not in self._remembered]
        if not unknown:
            return
        found = await self._store.profiles(unknown)
        for user_id in unknown:
            self._remembered.setdefault(user_id, found.get(user_id))
        while len(self._remembered) > max(REMEMBERED_MAX, len(user_ids)):
            self._remembered.popitem(last=False)

    def of(self, caller: Caller) -> UserProfile:
        """Return the profile to show for a caller."""
        stored = self._remembered.get(caller.user_id)
        claims = caller.profile
        if stored is None or (claims != UserProfile() and caller.issued_at_ms > stored.updated_at_ms):
            return claims
        return stored.over(claims)

    async def write(self, lines: list[Line]) -> None:
        """Store updates: the handler of `chat.users`, which one replica consumes. Raises Unavailable."""
        for line in lines:
            if (read := _read(line, self._clock_ms())) is not None:
                user_id, update = read
                before = (await self._store.profiles([user_id])).get(user_id, StoredProfile())
                await self._store.put(user_id, before.updated(update))

    async def learn(self, lines: list[Line]) -> None:
        """Update the memory: the handler of this replica's own queue. Raises Unavailable."""
        for line in lines:
            if (read := _read(line, self._clock_ms())) is not None:
                user_id, update = read
                await self.load([user_id])
                self._remembered[user_id] = (self._remembered[user_id] or StoredProfile()).updated(update)
            line.rejected = None  # the handler of `chat.users` rejects it


def _read(line: Line, now_ms: int) -> tuple[str, StoredProfile] | None:
    """Return the user and the update of a line; None for other events. Rejects a line without a valid event."""
    try:
        event = decode_event(line.body)
        if event.type != USER_UPDATED:
            return None
        data = convert(event.data, UserUpdate)
        at_ms = event_time_ms(event)
    except (Malformed, Refusal) as error:
        line.reject(str(error))
        return None
    return data.user_id, StoredProfile(
        first_name=data.first_name,
        last_name=data.last_name,
        avatar=data.avatar,
        updated_at_ms=now_ms if at_ms is None else min(at_ms, now_ms),
    )
