"""How far the log of each room was handed over: every query on `followed_rooms` and `follower_checkpoints`.

`followed_rooms`: `_id` is the room id. `searchRev` and `mentionsRev` are the last entry handed over to each consumer;
where one is missing, `rev` applies, which earlier versions wrote for all. `touchedAtMs` is when an entry other than a
message was last about to be committed (noted at most once in 30 s), or a position was last saved.
`follower_checkpoints`: `_id` is a partition, `atMs` its checkpoint: every room with an entry that is not handed over
yet was marked as active (in `room_records`) or touched (here) no earlier than a minute before it.
"""

from collections.abc import Collection, Mapping

from pymongo import ASCENDING, IndexModel, UpdateOne
from pymongo.read_concern import ReadConcern

from shared.mongo import Database, Document, Indexes, find_among, translated, write_each

INDEXES: Indexes = {"followed_rooms": [IndexModel([("touchedAtMs", ASCENDING)])]}


class PositionStore:
    """Reads and writes of positions. Every method raises Unavailable when the database cannot be reached in time."""

    def __init__(self, database: Database) -> None:
        majority = ReadConcern("majority")
        self._rooms = database.get_collection("followed_rooms", read_concern=majority)
        self._checkpoints = database.get_collection("follower_checkpoints", read_concern=majority)

    async def save(self, positions: Mapping[str, Mapping[str, int]], at_ms: int) -> None:
        """Move positions, by room and consumer, forward, never back."""
        writes = [
            UpdateOne({"_id": room_id}, {"$max": {**_fields_of(revs), "touchedAtMs": at_ms}}, upsert=True)
            for room_id, revs in positions.items()
        ]
        await write_each(self._rooms, writes)

    async def touch(self, room_ids: Collection[str], at_ms: int) -> None:
        """Note that entries of these rooms are being committed. Harmless if they are not after all."""
        writes = [UpdateOne({"_id": room_id}, {"$max": {"touchedAtMs": at_ms}}, upsert=True) for room_id in room_ids]
        await write_each(self._rooms, writes)

    async def touched_since(self, at_ms: int) -> list[str]:
        """Return the rooms that were touched since then."""
        with translated():
            found = await self._rooms.find({"touchedAtMs": {"$gte": at_ms}}, {"_id": 1}).to_list(None)
        return [document["_id"] for document in found]

    async def positions(self, room_ids: Collection[str], consumers: Collection[str]) -> dict[str, dict[str, int]]:
        """Return the last rev handed over, by room and consumer; those without one are absent."""
        found = await find_among(self._rooms, room_ids)
        return {
            document["_id"]: {
                name: rev for name in consumers if (rev := document.get(f"{name}Rev", document.get("rev"))) is not None
            }
            for document in found
        }

    async def checkpoints(self, partitions: Collection[int]) -> dict[int, int]:
        """Return the checkpoints of those partitions that have one."""
        found = await find_among(self._checkpoints, partitions)
        return {document["_id"]: document["atMs"] for document in found}

    async def save_checkpoints(self, partitions: Collection[int], at_ms: int) -> None:
        """Move the checkpoints of partitions forward, never back."""
        writes = [UpdateOne({"_id": one}, {"$max": {"atMs": at_ms}}, upsert=True) for one in partitions]
        await write_each(self._checkpoints, writes)


def _fields_of(revs: Mapping[str, int]) -> Document:
    return {f"{name}Rev": rev for name, rev in revs.items()}
