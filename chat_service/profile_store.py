"""Profiles from `user.updated` events, in the collection `users` (`_id` user id)."""

from collections.abc import Collection

import msgspec

from shared.mongo import Database, translated
from shared.protocol.server_frames import UserProfile


class StoredProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that events have set; None for a field that no event set."""

    first_name: str | None = None
    last_name: str | None = None
    avatar: str | None = None
    updated_at_ms: int = 0

    def over(self, claims: UserProfile) -> UserProfile:
        """Return the profile: these fields where they are set, else those of `claims`."""
        return UserProfile(
            first_name=claims.first_name if self.first_name is None else self.first_name,
            last_name=claims.last_name if self.last_name is None else self.last_name,
            avatar=claims.avatar if self.avatar is None else self.avatar,
        )

    def updated(self, later: "StoredProfile") -> "StoredProfile":
        """Return this with the fields of `later`; unchanged if `later` is older."""
        if later.updated_at_ms < self.updated_at_ms:
            return self
        known = {name: value for name, value in msgspec.structs.asdict(later).items() if value is not None}
        return msgspec.structs.replace(self, **known)


class ProfileStore:
    """Reads and writes of profiles. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._users = database["users"]

    async def profiles(self, user_ids: Collection[str]) -> dict[str, StoredProfile]:
        """Return the profiles of these users, as far as events have set any."""
        with translated():
            found = await self._users.find({"_id": {"$in": list(user_ids)}}).to_list(None)
        return {document["_id"]: msgspec.convert(document["profile"], StoredProfile) for document in found}

    async def put(self, user_id: str, profile: StoredProfile) -> None:
        """Write a profile."""
        with translated():
            await self._users.update_one(
                {"_id": user_id}, {"$set": {"profile": msgspec.to_builtins(profile)}}, upsert=True
            )
