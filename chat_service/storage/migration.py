"""The migration from the collections of 0.2, `rooms`, `members` and `messages`, to the room log.

It runs before the process serves, and once for each database:

    wait for the old replicas → fence → copy members → copy rooms → done

The wait is a courtesy; the fence makes the migration safe. Validators refuse every later write of an old
process to the three collections, except deletions and changes of messages, and everything written before the
validators were set is on a majority. So every write that an old process saw acknowledged is read after the fence, and
an old process that thaws or starts later stores nothing. No clock matters.

Each step is bounded and idempotent: a migration that was killed continues, and two may run at once. They insert only
missing documents and only move read marks forward, so a slow one changes nothing that a faster process wrote since.

Old messages stay where they are. A message there has rev = seq by definition, and the first entry of a room's log takes
the rev after its last old message.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pymongo import ASCENDING, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern

from chat_service.rooms.room import Room, RoomType
from chat_service.storage.documents import from_old_member, from_room, to_old_room
from chat_service.storage.room_store import RoomStore
from shared.errors import Unavailable
from shared.mongo import Database, Document, Documents, chunks, find_among, only_duplicates, translated
from shared.telemetry import logs

log = logs.get(__name__)

NAME = "room_log"
BATCH = 500
ROOMS_AT_ONCE = 20
LEASES_MAX = 1_000
LEASE_WATCH_S = 4.0  # a replica of 0.2 renews its lease of 3 s every second
RETRY_S = 1.0
UNAUTHORIZED = 13
# Purges of 0.2 may still delete. Manual updates may still change messages, but not insert any.
LEVELS: Mapping[str, str] = {"members": "strict", "rooms": "strict", "messages": "moderate"}


async def read_state(states: Documents, name: str) -> Document:
    """Return the state of a migration; empty before it begins. Raises Unavailable."""
    with translated():
        return await states.find_one({"_id": name}) or {}


async def save_state(states: Documents, name: str, change: Document) -> None:
    """Change the state of a migration. Raises Unavailable, also when another process begins it at the same moment."""
    try:
        with translated():
            await states.update_one({"_id": name}, change, upsert=True)
    except DuplicateKeyError as error:
        raise Unavailable(f"another process began {name} at the same moment") from error


class Migration:
    """Fills `room_records` and `room_members` from the collections of 0.2."""

    def __init__(self, database: Database, rooms: RoomStore) -> None:
        majority = ReadConcern("majority")
        self._database = database
        self._states = database["migrations"]
        self._leases = database["nodes"]
        self._old_rooms = database.get_collection("rooms", read_concern=majority)
        self._old_members = database.get_collection("members", read_concern=majority)
        self._old_messages = database.get_collection("messages", read_concern=majority)
        self._records = database["room_records"]
        self._members = database["room_members"]
        self._rooms = rooms

    async def run(self) -> None:
        """Migrate, unless done already; retry while the database is unavailable."""
        while True:
            try:
                if not (await self._state()).get("done"):
                    await self._migrate()
                return
            except Unavailable as error:
                log.warning("migration_waits", reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _migrate(self) -> None:
        await self._wait_for_old_replicas()
        with translated():
            is_new = await self._old_rooms.find_one({}, {"_id": 1}) is None
        if not is_new:
            await self._fence()
            await self._copy("members", self._old_members, self._copy_members)
            await self._copy("rooms", self._old_rooms, self._copy_rooms)
        await self._save({"$set": {"done": True}})
        log.info("migration_done", is_new=is_new)

    # The state of the migration -------------------------------------------------------------------------------------

    async def _state(self) -> Document:
        return await read_state(self._states, NAME)

    async def _save(self, change: Document) -> None:
        await save_state(self._states, NAME, change)

    # Old processes --------------------------------------------------------------------------------------------------

    async def _wait_for_old_replicas(self) -> None:
        """Wait until, for longer than a lease lasts, no old replica has renewed its lease.

        A released lease is removed at once.
        """
        before = await self._old_leases()
        while before:
            await asyncio.sleep(LEASE_WATCH_S)
            now = await self._old_leases()
            renewed = dict(now.items() - before.items())
            if not renewed:
                return
            log.warning("migration_waits", reason="chat_service of 0.2 runs: stop it", replicas=sorted(renewed))
            before = now

    async def _old_leases(self) -> dict[str, int]:
        with translated():
            found = await self._leases.find({"kind": "chat"}).limit(LEASES_MAX).to_list(None)
        return {document["_id"]: document["expiresAtMs"] for document in found}

    async def _fence(self) -> None:
        """Refuse later writes of old processes, and return once a majority holds all earlier ones."""
        with translated():
            existing = await self._database.list_collection_names()
        for name in LEVELS.keys() & set(existing):
            await self._refuse_writes(name, LEVELS[name])
        await self._save({"$set": {"fenced": True}})  # a majority then holds all earlier writes too

    async def _refuse_writes(self, name: str, level: str) -> None:
        """Set a validator that no document of 0.2 passes: none has a `rev`."""
        command = {
            "collMod": name,
            "validator": {"rev": {"$exists": True}},
            "validationLevel": level,
            "validationAction": "error",
            "writeConcern": {"w": "majority"},
        }
        with translated():
            try:
                await self._database.command(command)
            except OperationFailure as error:
                if error.code != UNAUTHORIZED:
                    raise
                raise Unavailable("the database user may not run collMod: grant it the role dbAdmin") from error

    # Copying --------------------------------------------------------------------------------------------------------

    async def _copy(self, name: str, source: Any, copy: Callable[[Sequence[Document]], Awaitable[None]]) -> None:
        """Copy a collection in the order of its ids, a batch at a time, from where the last process stopped."""
        while not (state := await self._state()).get("done"):
            with translated():
                rest = source.find({"_id": {"$gt": state.get(name, "")}})
                found = await rest.sort("_id", ASCENDING).limit(BATCH).to_list(None)
            if not found:
                return
            await copy(found)
            await self._save({"$max": {name: found[-1]["_id"]}})
            log.info("migration_step", collection=name, documents=len(found))

    async def _copy_members(self, found: Sequence[Document]) -> None:
        """Copy the memberships and invitations that are still valid.

        Skip removed ones, and those of rooms that are deleted or were never stored. A user who left a public room may
        come back anyway, and must have no invitation if the room becomes private.
        """
        room_ids = {document["roomId"] for document in found}
        fields = {"type": 1, "deleted": 1}
        rooms = {
            document["_id"]: document for document in await find_among(self._old_rooms, room_ids, projection=fields)
        }
        kept = [document for document in found if _is_kept(document, rooms.get(document["roomId"]))]
        writes = [_insertion(*from_old_member(document)) for document in kept]
        await _write(self._members, writes)

    async def _copy_rooms(self, found: Sequence[Document]) -> None:
        """Write the read marks that the rooms' last messages imply, then copy the rooms."""
        for some in chunks(found, ROOMS_AT_ONCE):
            caught_up = await asyncio.gather(*map(self._catch_up, some))
            marks = [mark for _, senders in caught_up for mark in senders.items()]
            for few in chunks(marks, BATCH):
                await self._rooms.put_read_marks(dict(few))
            await _write(self._records, [_insertion(room.id, from_room(room)) for room, _ in caught_up])

    async def _catch_up(self, document: Document) -> tuple[Room, dict[tuple[str, str], int]]:
        """Return a room brought up to date with all its messages and members.

        Return also the read marks that the messages beyond its record imply. 0.2 wrote a record after its messages, so
        the records of a killed process are outdated.
        """
        room = to_old_room(document)
        marks: dict[tuple[str, str], int] = {}
        while beyond := await self._messages_after(room.id, room.last_seq):
            marks |= {(room.id, message["userId"]): message["seq"] for message in beyond}
            newest = beyond[-1]
            room.last_seq = newest["seq"]
            room.last_message_at_ms = newest["createdAtMs"]
            room.active_at_ms = max(room.active_at_ms, newest["createdAtMs"])
        room.rev = room.old_seq = room.last_seq
        with translated():
            room.member_count = await self._old_members.count_documents({"roomId": room.id, "active": True})
        return room, marks

    async def _messages_after(self, room_id: str, seq: int) -> list[Document]:
        wanted = {"roomId": room_id, "seq": {"$gt": seq}}
        with translated():
            cursor = self._old_messages.find(wanted, {"_id": 0, "seq": 1, "userId": 1, "createdAtMs": 1})
            return await cursor.sort("seq", ASCENDING).limit(BATCH).to_list(None)


def _is_kept(member: Document, room: Document | None) -> bool:
    if member.get("removed") or room is None or room["deleted"]:
        return False
    return bool(member["active"]) or room["type"] != RoomType.PUBLIC.value


def _insertion(id_: str, document: Document) -> UpdateOne:
    return UpdateOne({"_id": id_}, {"$setOnInsert": document}, upsert=True)


async def _write(collection: Any, writes: Sequence[UpdateOne]) -> None:
    """Insert missing documents. Another process may insert the same at the same moment."""
    if not writes:
        return
    try:
        with translated():
            await collection.bulk_write(writes, ordered=False)
    except BulkWriteError as error:
        if not only_duplicates(error):
            raise
