"""Notified mentions by sender: every query on the collection `mention_grants`, `_id` the sender.

Written by compare-and-set, because a sender's messages in different rooms have different owners. A document expires two
hours after its last write.
"""

from collections.abc import Collection

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from chat_service.mentions.sent_mentions import WINDOW_MS, SentMention, SentMentions
from shared.mongo import Database, Indexes, date, find_among, translated

INDEXES: Indexes = {
    "mention_grants": [
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
        IndexModel([("_id", ASCENDING), ("rev", ASCENDING)]),
    ]
}


class SentMentionStore:
    """Reads and writes of sent mentions. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._sent = database["mention_grants"]

    async def sent(self, user_ids: Collection[str]) -> dict[str, SentMentions]:
        """Return the sent mentions of senders; those without any are absent."""
        return {
            found["_id"]: SentMentions(
                found["rev"], tuple(SentMention(item["id"], item["atMs"]) for item in found["recent"])
            )
            for found in await find_among(self._sent, user_ids)
        }

    async def replace_sent(self, user_id: str, sent: SentMentions, now_ms: int) -> bool:
        """Write sent mentions unless they have changed since they were read; return whether they are written."""
        fields = {
            "rev": sent.rev + 1,
            "recent": [{"id": one.id, "atMs": one.at_ms} for one in sent.recent],
            "expiresAt": date(now_ms + 2 * WINDOW_MS),
        }
        try:
            with translated():
                if sent.rev:
                    chosen = {"_id": user_id, "rev": sent.rev}
                    return (await self._sent.update_one(chosen, {"$set": fields})).matched_count == 1
                await self._sent.insert_one({"_id": user_id, **fields})
        except DuplicateKeyError:
            return False
        return True
