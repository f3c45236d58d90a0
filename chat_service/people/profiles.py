"""Profiles shown with messages.

A profile is the name and picture in the token's claims. A field that a `user.updated` event has set replaces the claim.
But if the token has any of these claims and was issued after the last such event, only its claims are shown.

One replica stores an event, once per event id, and then publishes the profile; every replica that caches the user
updates its cache. A replica that lost its connection may have missed an update and clears its cache.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import msgspec

from chat_service.people.profile_store import ProfileStore, StoredProfile
from shared.bus.bus import Bus
from shared.bus.consumer import Line
from shared.bus.events import USER_UPDATED, decode_event, event_key, event_time_ms
from shared.bus.topology import BEATS
from shared.commands.broadcasts import ProfileUpdated
from shared.commands.command import Caller
from shared.encoding import to_json
from shared.errors import Malformed, Refusal
from shared.protocol.server_frames import UserProfile
from shared.protocol.validation import UserId, convert, shown_avatar, shown_name

REMEMBERED_MAX = 50_000


class UserUpdate(msgspec.Struct, frozen=True, rename="camel"):
    """The data of `user.updated`; absent fields stay unchanged, and null ones are cleared."""

    user_id: UserId
    first_name: str | msgspec.UnsetType | None = msgspec.UNSET
    last_name: str | msgspec.UnsetType | None = msgspec.UNSET
    avatar: str | msgspec.UnsetType | None = msgspec.UNSET


class Profiles:
    """Profiles by user. Bound: 50,000 in memory."""

    def __init__(self, store: ProfileStore, bus: Bus, clock_ms: Callable[[], int]) -> None:
        self._store = store
        self._bus = bus
        self._clock_ms = clock_ms
        self._remembered: OrderedDict[str, StoredProfile | None] = OrderedDict()
        self._outdated: Mapping[str, StoredProfile | None] = {}  # as of the last disconnection, for commits in progress
        self._version = 0  # counts updates: a profile read before one may be outdated
        bus.on_disconnected.append(self._forget)

    def _forget(self) -> None:
        """Load every profile again, since updates may be missed. Commits under way still need those they loaded."""
        self._outdated, self._remembered = self._remembered, OrderedDict()

    async def load(self, user_ids: Collection[str]) -> None:
        """Load the profiles of these users for `of`. Raises Unavailable."""
        while unknown := [user_id for user_id in user_ids if user_id not in self._remembered]:
            version = self._version
            found = await self._store.profiles(unknown)
            if version == self._version:
                self._remembered |= {user_id: found.get(user_id) for user_id in unknown}
        for user_id in user_ids:
            self._remembered.move_to_end(user_id)
        while len(self._remembered) > max(REMEMBERED_MAX, len(user_ids)):
            self._remembered.popitem(last=False)

    def of(self, caller: Caller) -> UserProfile:
        """Return the profile to show for a caller."""
        known = self._remembered if caller.user_id in self._remembered else self._outdated
        stored = known.get(caller.user_id)
        claims = caller.profile
        if stored is None or (claims != UserProfile() and caller.issued_at_ms > stored.updated_at_ms):
            return claims
        return stored.overlaid_on(claims)

    async def write(self, lines: list[Line]) -> None:
        """Store updates: the handler of `chat.users`, which one replica consumes. Raises Unavailable."""
        for line in lines:
            update = _read(line, self._clock_ms())
            if update is None or await self._store.is_known(update.event_key):
                continue
            before = (await self._store.profiles([update.user_id])).get(update.user_id, StoredProfile())
            profile = before.updated(update.stored)
            await self._store.put(update.user_id, profile)
            await self._store.note_event(update.event_key, self._clock_ms())
            updated = ProfileUpdated(user_id=update.user_id, profile=msgspec.Raw(to_json(profile)))
            self._bus.send(BEATS, "", to_json(updated))

    def learn(self, updated: ProfileUpdated) -> None:
        """Update the cache with a profile that a replica has stored."""
        self._version += 1
        if updated.user_id in self._remembered:
            self._remembered[updated.user_id] = msgspec.json.decode(updated.profile, type=StoredProfile)


class _Update(NamedTuple):
    event_key: str
    user_id: str
    stored: StoredProfile


def _read(line: Line, now_ms: int) -> _Update | None:
    """Return the update of a line; None for other events. Rejects a line without a valid event."""
    try:
        return read_update(line.body, now_ms)
    except (Malformed, Refusal) as error:
        line.reject(str(error))
        return None


def read_update(body: bytes, now_ms: int) -> _Update | None:
    """Return the update of an event; None for other events. Raises Malformed, Refusal."""
    event = decode_event(body)
    if event.type != USER_UPDATED:
        return None
    data = convert(event.data, UserUpdate)
    at_ms = event_time_ms(event)
    stored = StoredProfile(
        first_name=_changed(data.first_name, shown_name),
        last_name=_changed(data.last_name, shown_name),
        avatar=_changed(data.avatar, shown_avatar),
        updated_at_ms=now_ms if at_ms is None else min(at_ms, now_ms),
    )
    return _Update(event_key(event), data.user_id, stored)


def _changed(field: str | msgspec.UnsetType | None, shown: Callable[[str], str | None]) -> str | None:
    """Return the text to store: None for an absent field, an empty text for a cleared one."""
    if field is msgspec.UNSET:
        return None
    return (shown(field) if isinstance(field, str) else None) or ""
