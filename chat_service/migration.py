"""The way from the collections of versions before the room log: `rooms`, `members`, `messages`.

Runs before the first commit and once only. The old chat_service stops first: the migration waits until no old lease
lives, and sets a validator on `messages`, so that a late insert of a frozen old process fails. The new collections are
then filled in bounded steps, each idempotent, so a killed migration goes on where it was, and two may run at once.

Old messages stay where they are. A message there has rev = seq by definition, and the first entry of a room's log takes
the rev after its last old message.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pymongo import UpdateOne
from pymongo.read_concern import ReadConcern

from chat_service.documents import from_room, member_key
from chat_service.rooms import Room, RoomType
from chat_service.store import RoomStore
from shared.backoff import Backoff
from shared.bus.bus import Bus
from shared.bus.topology import OLD_QUEUES
from shared.errors import Unavailable
from shared.mongo import Database, Document, translated
from shared.telemetry import logs

log = logs.get(__name__)

NAME = "room_log"
BATCH = 500
OLD_LEASE_POLL_S = 1.0


class Migration:
    """Fills `room_records` and `room_members` from the old collections."""

    def __init__(self, database: Database, rooms: RoomStore, clock_ms: Callable[[], int]) -> None:
        majority = ReadConcern("majority")
        self._database = database
        self._states = database["migrations"]
        self._nodes = database["nodes"]
        self._old_rooms = database.get_collection("rooms", read_concern=majority)
        self._old_members = database.get_collection("members", read_concern=majority)
        self._old_messages = database.get_collection("messages", read_concern=majority)
        self._records = database["room_records"]
        self._members = database["room_members"]
        self._rooms = rooms
        self._clock_ms = clock_ms

    async def run(self) -> None:
        """Migrate unless that was done; retries while the database is unavailable."""
        while True:
            try:
                if not await self._is_done():
                    await self._migrate()
                return
            except Unavailable as error:
                log.warning("migration_waits", reason=str(error))
                await asyncio.sleep(OLD_LEASE_POLL_S)

    async def _is_done(self) -> bool:
        with translated():
            return bool((await self._states.find_one({"_id": NAME}) or {}).get("done"))

    async def _migrate(self) -> None:
        with translated():
            is_new = await self._old_rooms.find_one({}, {"_id": 1}) is None
        if not is_new:
            await self._wait_for_old_leases()
            await self._refuse_late_inserts()
            await self._copy("rooms", self._old_rooms, self._copy_rooms)
            await self._copy("members", self._old_members, self._copy_members)
        with translated():
            await self._states.update_one({"_id": NAME}, {"$set": {"done": True}}, upsert=True)
        log.info("migration_done", is_new=is_new)

    async def _wait_for_old_leases(self) -> None:
        while True:
            with translated():
                alive = await self._nodes.count_documents({"kind": "chat", "expiresAtMs": {"$gt": self._clock_ms()}})
            if not alive:
                return
            log.warning("migration_waits", reason=f"{alive} chat_service replicas of the old version run: stop them")
            await asyncio.sleep(OLD_LEASE_POLL_S)

    async def _refuse_late_inserts(self) -> None:
        validator = {"rev": {"$exists": True}}
        with translated():
            await self._database.command(
                "collMod", "messages", validator=validator, validationLevel="moderate", validationAction="error"
            )

    async def _copy(self, name: str, source: Any, copy: Callable[[Sequence[Document]], Any]) -> None:
        """Copy a collection in the order of its ids, 500 documents at a time, remembering how far it came."""
        with translated():
            state = await self._states.find_one({"_id": NAME}) or {}
        after = state.get(name, "")
        while True:
            with translated():
                found = await source.find({"_id": {"$gt": after}}).sort("_id", 1).limit(BATCH).to_list(None)
            if not found:
                return
            await copy(found)
            after = found[-1]["_id"]
            with translated():
                await self._states.update_one({"_id": NAME}, {"$set": {name: after}}, upsert=True)
            log.info("migration_step", collection=name, documents=len(found))

    async def _copy_rooms(self, found: Sequence[Document]) -> None:
        rooms = await asyncio.gather(*map(self._to_room, found))
        writes = [UpdateOne({"_id": room.id}, {"$setOnInsert": from_room(room)}, upsert=True) for room in rooms]
        with translated():
            await self._records.bulk_write(writes, ordered=False)

    async def _to_room(self, document: Document) -> Room:
        """Return a room whose rev is its last old message, which its old record may not know yet."""
        newest = {"roomId": document["_id"], "seq": {"$gt": document["lastSeq"]}}
        with translated():
            beyond = await self._old_messages.find(newest).sort("seq", -1).limit(1).to_list(None)
        last = beyond[0] if beyond else None
        last_seq = document["lastSeq"] if last is None else last["seq"]
        direct = document["direct"]
        return Room(
            id=document["_id"],
            rev=last_seq,
            name=document["name"],
            description=document["description"],
            type=RoomType(document["type"]),
            created_by=document["createdBy"],
            created_at_ms=document["createdAtMs"],
            active_at_ms=document["activeAtMs"] if last is None else last["createdAtMs"],
            direct=(direct[0], direct[1]) if direct else None,
            last_seq=last_seq,
            old_seq=last_seq,
            last_message_at_ms=document["lastMessageAtMs"] if last is None else last["createdAtMs"],
            member_count=await self._count_members(document["_id"]),
            deleted=document["deleted"],
        )

    async def _count_members(self, room_id: str) -> int:
        with translated():
            return await self._old_members.count_documents({"roomId": room_id, "active": True})

    async def _copy_members(self, found: Sequence[Document]) -> None:
        kept = [document for document in found if not document.get("removed")]
        writes = [
            UpdateOne(
                {"_id": member_key(document["roomId"], document["userId"])},
                {
                    "$setOnInsert": {
                        "rev": 0,
                        "roomId": document["roomId"],
                        "userId": document["userId"],
                        "active": document["active"],
                        "invited": True,
                        "role": document["role"],
                        "joinedAtMs": document["joinedAtMs"],
                        "profile": document["profile"],
                        "online": document.get("online", False),
                    },
                    "$max": {"readSeq": document["readSeq"]},
                },
                upsert=True,
            )
            for document in kept
        ]
        if writes:
            with translated():
                await self._members.bulk_write(writes, ordered=False)


async def delete_old_queues(bus: Bus) -> None:
    """Delete the broker's queues of earlier versions: commands in them were never answered, and have long expired."""
    backoff = Backoff(1.0, 60.0)
    await bus.wait_connected()
    waiting = list(OLD_QUEUES)
    while waiting:
        try:
            await bus.delete_queue(waiting[-1])
            waiting.pop()
        except Unavailable as error:
            log.warning("old_queue_not_deleted", queue=waiting[-1], reason=str(error))
            await asyncio.sleep(backoff.next_s())
