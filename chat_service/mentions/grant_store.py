"""Notified mentions by sender: every query on the collection `mention_grants`, `_id` the sender.

Written by compare-and-set, because a sender's messages in different rooms have different owners. A document expires an
hour after its last write.
"""

from collections.abc import Collection

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from chat_service.mentions.grants import WINDOW_MS, Grant, Grants
from shared.mongo import Database, Indexes, date, find_among, translated

INDEXES: Indexes = {
    "mention_grants": [
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
        IndexModel([("_id", ASCENDING), ("rev", ASCENDING)]),
    ]
}


class GrantStore:
    """Reads and writes of grants. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._grants = database["mention_grants"]

    async def grants(self, user_ids: Collection[str]) -> dict[str, Grants]:
        """Return the grants of senders; those without any are absent."""
        return {
            found["_id"]: Grants(found["rev"], tuple(Grant(item["id"], item["atMs"]) for item in found["recent"]))
            for found in await find_among(self._grants, user_ids)
        }

    async def replace_grants(self, user_id: str, grants: Grants, now_ms: int) -> bool:
        """Write grants unless they have changed since they were read; return whether they are written."""
        fields = {
            "rev": grants.rev + 1,
            "recent": [{"id": grant.id, "atMs": grant.at_ms} for grant in grants.recent],
            "expiresAt": date(now_ms + 2 * WINDOW_MS),
        }
        try:
            with translated():
                if grants.rev:
                    chosen = {"_id": user_id, "rev": grants.rev}
                    return (await self._grants.update_one(chosen, {"$set": fields})).matched_count == 1
                await self._grants.insert_one({"_id": user_id, **fields})
        except DuplicateKeyError:
            return False
        return True
