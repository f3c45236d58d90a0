"""Revocations in MongoDB: the collection `standings` (an older name, kept on disk), `_id` the user id.

The server removes expired ones.
"""

from collections.abc import Collection, Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne
from pymongo.read_concern import ReadConcern

from shared.commands.notifier import FOR_EVER_MS, Revocation
from shared.mongo import DOCUMENTS_MAX, Database, Document, Indexes, chunks, conflicting, date, find_among, translated
from shared.times import MILLISECONDS_PER_DAY

INDEXES: Indexes = {
    "standings": [
        IndexModel([("version", ASCENDING)], unique=True),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ],
}


class RevocationStore:
    """Reads and writes of revocations. Every method raises Unavailable when the database is unavailable.

    A revocation is kept for `revocation_ttl_days`, which must exceed the lifetime of any token; a ban is kept longer.
    """

    def __init__(self, database: Database, revocation_ttl_days: int) -> None:
        self._revocations = database.get_collection("standings", read_concern=ReadConcern("majority"))
        self._ttl_ms = revocation_ttl_days * MILLISECONDS_PER_DAY

    async def revocations(self, user_ids: Collection[str]) -> dict[str, Revocation]:
        """Return the revocations of these users."""
        found = await find_among(self._revocations, user_ids)
        return {document["_id"]: _to_revocation(document) for document in found}

    async def highest_version(self) -> int:
        """Return the highest stored version."""
        with translated():
            newest = await self._revocations.find_one({}, {"version": 1}, sort=[("version", DESCENDING)])
        return newest["version"] if newest else 0

    async def put(self, revocations: Sequence[Revocation], now_ms: int) -> None:
        """Replace these revocations. Raises WriteConflict if another writer used their versions."""
        writes = [
            ReplaceOne({"_id": one.user_id}, self._from_revocation(one, now_ms), upsert=True) for one in revocations
        ]
        for some in chunks(writes, DOCUMENTS_MAX):
            with conflicting("a version was used twice"), translated():
                await self._revocations.bulk_write(some)

    async def after(self, version: int, limit: int) -> list[Revocation]:
        """Return the revocations with a higher version, lowest first."""
        with translated():
            found = self._revocations.find({"version": {"$gt": version}}).sort("version", ASCENDING).limit(limit)
            documents = await found.to_list(None)
        return [_to_revocation(document) for document in documents]

    def _from_revocation(self, revocation: Revocation, now_ms: int) -> Document:
        document: Document = {
            "_id": revocation.user_id,
            "version": revocation.version,
            "issuedBeforeMs": revocation.issued_before_ms,
            "bannedUntilMs": revocation.banned_until_ms,
        }
        if revocation.banned_until_ms == FOR_EVER_MS:
            return document
        return document | {"expiresAt": date(max(now_ms, revocation.banned_until_ms) + self._ttl_ms)}


def _to_revocation(document: Document) -> Revocation:
    return Revocation(
        user_id=document["_id"],
        version=document["version"],
        issued_before_ms=document["issuedBeforeMs"],
        banned_until_ms=document["bannedUntilMs"],
    )
