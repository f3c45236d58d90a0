"""Standings in MongoDB: the collection `standings`, `_id` the user id. Gone when nothing can be left of them."""

from collections.abc import Collection, Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne

from shared.commands.notifier import FOR_EVER_MS, Revocation
from shared.mongo import Database, Document, Indexes, conflicting, date, translated
from shared.times import MILLISECONDS_PER_DAY

INDEXES: Indexes = {
    "standings": [
        IndexModel([("version", ASCENDING)], unique=True),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ],
}


class RevocationStore:
    """Reads and writes of standings. Every method raises Unavailable when the database is away.

    They are kept for `revocation_ttl_days`, which is to be longer than any token lives; bans longer.
    """

    def __init__(self, database: Database, revocation_ttl_days: int) -> None:
        self._revocations = database["standings"]
        self._ttl_ms = revocation_ttl_days * MILLISECONDS_PER_DAY

    async def revocations(self, user_ids: Collection[str]) -> dict[str, Revocation]:
        """What stands against these users."""
        with translated():
            found = await self._revocations.find({"_id": {"$in": list(user_ids)}}).to_list(None)
        return {document["_id"]: _to_revocation(document) for document in found}

    async def highest_version(self) -> int:
        """The highest version that is kept."""
        with translated():
            newest = await self._revocations.find_one({}, {"version": 1}, sort=[("version", DESCENDING)])
        return newest["version"] if newest else 0

    async def put(self, standings: Sequence[Revocation], now_ms: int) -> None:
        """Write standings as they now are. Raises Conflict when another has given out their versions."""
        writes = [
            ReplaceOne({"_id": one.user_id}, self._from_revocation(one, now_ms), upsert=True) for one in standings
        ]
        if writes:
            with conflicting("a version of a standing was given out twice"), translated():
                await self._revocations.bulk_write(writes)

    async def after(self, version: int, limit: int) -> list[Revocation]:
        """Standings with a higher version, lowest first."""
        with translated():
            found = self._revocations.find({"version": {"$gt": version}}).sort("version", ASCENDING).limit(limit)
            documents = await found.to_list(None)
        return [_to_revocation(document) for document in documents]

    def _from_revocation(self, standing: Revocation, now_ms: int) -> Document:
        document: Document = {
            "_id": standing.user_id,
            "version": standing.version,
            "issuedBeforeMs": standing.issued_before_ms,
            "bannedUntilMs": standing.banned_until_ms,
        }
        if standing.banned_until_ms == FOR_EVER_MS:
            return document
        return document | {"expiresAt": date(max(now_ms, standing.banned_until_ms) + self._ttl_ms)}


def _to_revocation(document: Document) -> Revocation:
    return Revocation(
        user_id=document["_id"],
        version=document["version"],
        issued_before_ms=document["issuedBeforeMs"],
        banned_until_ms=document["bannedUntilMs"],
    )
