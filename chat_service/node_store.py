"""Leases of chat_service replicas in the collection `nodes`. `presence_store` keeps the gateways' leases there."""

from shared.mongo import Database, translated

FORGOTTEN_AFTER_MS = 60_000


class NodeStore:
    """Reads and writes of leases. Every method raises Unavailable when the database is unavailable."""

    def __init__(self, database: Database) -> None:
        self._nodes = database["nodes"]

    async def renew(self, node_id: str, expires_at_ms: int) -> None:
        """Take or renew a lease."""
        with translated():
            await self._nodes.update_one(
                {"_id": node_id}, {"$set": {"kind": "chat", "expiresAtMs": expires_at_ms}}, upsert=True
            )

    async def alive(self, now_ms: int) -> list[str]:
        """Return the replicas with a valid lease, and remove those dead for long."""
        with translated():
            found = await self._nodes.find({"kind": "chat"}).to_list(None)
            if any(document["expiresAtMs"] < now_ms - FORGOTTEN_AFTER_MS for document in found):
                await self._nodes.delete_many({"kind": "chat", "expiresAtMs": {"$lt": now_ms - FORGOTTEN_AFTER_MS}})
        return sorted(document["_id"] for document in found if document["expiresAtMs"] >= now_ms)

    async def release(self, node_id: str) -> None:
        """Release a lease."""
        with translated():
            await self._nodes.delete_one({"_id": node_id})
