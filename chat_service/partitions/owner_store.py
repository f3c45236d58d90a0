"""Owners of partitions and leases of replicas in MongoDB.

`partition_owners`: `_id` number; `node`, `queue`, `term`, changed by compare-and-set on the term alone.
`chat_leases`: `_id` node id; `at` is the server's clock (`$$NOW`), and its age is computed by the server too, so no
clock of a replica matters.
"""

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from chat_service.partitions.ownership import NO_OWNER, OwnerRecord
from shared.mongo import Database, Document, translated


class OwnerStore:
    """Every method raises Unavailable when the database cannot be reached in time."""

    def __init__(self, database: Database) -> None:
        self._owners = database.get_collection("partition_owners", read_concern=ReadConcern("majority"))
        self._leases = database["chat_leases"]

    async def owners(self) -> dict[int, OwnerRecord]:
        """Return the owner of every partition that ever had one."""
        with translated():
            found = await self._owners.find({}).to_list(None)
        return {document["_id"]: _to_owner(document) for document in found}

    async def owner(self, partition: int) -> OwnerRecord:
        """Return the owner of a partition, with majority read concern."""
        with translated():
            document = await self._owners.find_one({"_id": partition})
        return NO_OWNER if document is None else _to_owner(document)

    async def replace(self, partition: int, seen: OwnerRecord, node: str, queue: str) -> OwnerRecord | None:
        """Replace the owner, under the next term, if the term is still that of `seen`; None if it has changed."""
        change = {"$set": {"node": node, "queue": queue, "term": seen.term + 1}}
        chosen: Document = {"_id": partition, "term": seen.term}
        try:
            with translated():
                document = await self._owners.find_one_and_update(
                    chosen, change, upsert=seen.term == 0, return_document=ReturnDocument.AFTER
                )
        except DuplicateKeyError:  # the record exists, with another term than 0
            return None
        return None if document is None else _to_owner(document)

    async def renew(self, node: str) -> None:
        """Renew a replica's lease by the clock of the database server."""
        with translated():
            await self._leases.update_one({"_id": node}, [{"$set": {"at": "$$NOW"}}], upsert=True)

    async def lease_age_s(self, node: str) -> float | None:
        """Return the seconds since a replica renewed its lease, by the server's clock; None without a lease."""
        stages: list[Document] = [{"$match": {"_id": node}}, {"$addFields": {"now": "$$NOW"}}]
        with translated():
            found = await self._leases.aggregate(stages).to_list(None)
        return (found[0]["now"] - found[0]["at"]).total_seconds() if found else None

    async def end_lease(self, node: str) -> None:
        """Remove a replica's lease."""
        with translated():
            await self._leases.delete_one({"_id": node})


def _to_owner(document: Document) -> OwnerRecord:
    return OwnerRecord(document["node"], document["queue"], document["term"])
