"""Profiles from `user.updated` events, in the collections `users` (`_id` user id) and `user_events` (`_id` event key).

An event is known for 7 days, so a duplicate does not bring an old profile back.
"""

from collections.abc import Collection

import msgspec
from pymongo import ASCENDING, IndexModel

from shared.mongo import Database, Indexes, date, find_among, translated
from shared.protocol.server_frames import UserProfile
from shared.times import MILLISECONDS_PER_DAY

KNOWN_FOR_MS = 7 * MILLISECONDS_PER_DAY

INDEXES: Indexes = {"user_events": [IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0)]}


class StoredProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that events have set: None for a field that no event set, an empty text for one that was cleared."""

    first_name: str | None = None
    last_name: str | None = None
    avatar: str | None = None
    updated_at_ms: int = 0

    def overlaid_on(self, claims: UserProfile) -> UserProfile:
        """Return the profile: these fields where set, otherwise those of `claims`."""
        return UserProfile(
            first_name=claims.first_name if self.first_name is None else self.first_name,
            last_name=claims.last_name if self.last_name is None else self.last_name,
            avatar=claims.avatar if self.avatar is None else self.avatar or None,
        )

    def updated(self, later: "StoredProfile") -> "StoredProfile":
        """Return this profile with the fields of `later`, or unchanged if `later` is older."""
        if later.updated_at_ms < self.updated_at_ms:
            return self
        known = {name: value for name, value in msgspec.structs.asdict(later).items() if value is not None}
        return msgspec.structs.replace(self, **known)


class ProfileStore:
    """Reads and writes of profiles. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._users = database["users"]
        self._events = database["user_events"]

    async def is_known(self, event_key: str) -> bool:
        """Return whether an event was stored within the last 7 days."""
        with translated():
            return await self._events.find_one({"_id": event_key}, {"_id": 1}) is not None

    async def note_event(self, event_key: str, now_ms: int) -> None:
        """Remember an event for 7 days. Idempotent."""
        expires = date(now_ms + KNOWN_FOR_MS)
        with translated():
            await self._events.update_one({"_id": event_key}, {"$set": {"expiresAt": expires}}, upsert=True)

    async def profiles(self, user_ids: Collection[str]) -> dict[str, StoredProfile]:
        """Return the profiles of these users; users without a profile event are absent."""
        found = await find_among(self._users, user_ids)
        return {document["_id"]: msgspec.convert(document["profile"], StoredProfile) for document in found}

    async def put(self, user_id: str, profile: StoredProfile) -> None:
        """Write a profile."""
        with translated():
            await self._users.update_one(
                {"_id": user_id}, {"$set": {"profile": msgspec.to_builtins(profile)}}, upsert=True
            )
