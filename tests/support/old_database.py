"""A database as chat_service of 0.2 left it: the documents of `rooms`, `members`, `messages` and `nodes`.

    old = OldDatabase(database, public="room_1", private="room_2")
    await old.fill()

Ann created the rooms. The private one has ben as its member; cat left it, and dan was removed from it. Cat left the
public room too. The direct room is that of ann and ben. The process was killed before it wrote the records of its last
messages in the public room.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from pymongo import ASCENDING, DESCENDING, IndexModel, ReplaceOne, UpdateOne

from shared.ids import direct_room_id
from shared.mongo import Database, Document, Indexes

LEASE_MS = 3_000
CREATED_MS = 400_000
PUBLIC_MESSAGES, PUBLIC_KNOWN = 12, 7  # the record knows only the first ones
PRIVATE_MESSAGES, DIRECT_MESSAGES, DELETED_MESSAGES = 5, 3, 4
DELETED, LOST = "room_deleted", "room_lost"
SENDERS = ("ann", "ben")

INDEXES: Indexes = {
    "rooms": [
        IndexModel([("deleted", ASCENDING), ("type", ASCENDING), ("activeAtMs", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("deleted", ASCENDING), ("type", ASCENDING), ("words", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("version", ASCENDING)]),
    ],
    "members": [
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("joinedAtMs", ASCENDING), ("_id", ASCENDING)]),
        IndexModel([("roomId", ASCENDING), ("active", ASCENDING), ("online", ASCENDING)]),
        IndexModel([("userId", ASCENDING), ("active", ASCENDING)]),
        IndexModel([("_id", ASCENDING), ("term", ASCENDING)]),
    ],
    "messages": [
        IndexModel([("roomId", ASCENDING), ("seq", ASCENDING)], unique=True),
        IndexModel([("sentAs", ASCENDING)], unique=True, sparse=True),
    ],
}


def old_room(room_id: str, kind: str, last_seq: int, member_count: int) -> Document:
    """Return the record of a room."""
    at_ms = CREATED_MS + last_seq
    return {
        "_id": room_id,
        "name": "FX Traders",
        "words": ["fx", "traders"],
        "description": "Talk about pairs",
        "type": kind,
        "createdBy": "ann",
        "createdAtMs": CREATED_MS,
        "direct": None,
        "lastSeq": last_seq,
        "lastMessageAtMs": at_ms if last_seq else None,
        "activeAtMs": at_ms,
        "memberCount": member_count,
        "version": 3,
        "deleted": False,
    }


def old_member(room_id: str, user_id: str, read_seq: int, *, active: bool = True) -> Document:
    """Return a membership; without `active` that of a user who left."""
    return {
        "_id": f"{room_id}/{user_id}",
        "roomId": room_id,
        "userId": user_id,
        "role": "creator" if user_id == "ann" else "member",
        "joinedAtMs": CREATED_MS + 1,
        "profile": {"firstName": user_id.title(), "lastName": "Trader", "avatar": None},
        "active": active,
        "removed": False,
        "term": 2,
        "readSeq": read_seq,
        "online": False,
    }


def old_removed_member(room_id: str, user_id: str) -> Document:
    """Return the document of a removed member in 0.2."""
    return {
        "_id": f"{room_id}/{user_id}",
        "roomId": room_id,
        "userId": user_id,
        "active": False,
        "removed": True,
        "term": 2,
    }


def old_message(room_id: str, seq: int, key: str | None = None) -> Document:
    """Return a message of ann or ben, in turns; `key` is its clientMessageId."""
    user_id = SENDERS[seq % 2]
    document: Document = {
        "_id": f"msg_{room_id}_{seq}",
        "roomId": room_id,
        "seq": seq,
        "userId": user_id,
        "user": {"firstName": user_id.title(), "lastName": "Trader", "avatar": None},
        "text": f"old text {seq}",
        "createdAtMs": CREATED_MS + seq,
    }
    if key is not None:
        document |= {"clientMessageId": key, "sentAs": f"{room_id}/{user_id}/{key}"}
    return document


def old_messages(room_id: str, count: int) -> list[Document]:
    """Return the messages of a room; those with an even seq have a clientMessageId, `old<seq>`."""
    return [old_message(room_id, seq, None if seq % 2 else f"old{seq}") for seq in range(1, count + 1)]


@dataclass(frozen=True)
class OldDatabase:
    """The rooms of 0.2, and the writes with which its processes may come late."""

    database: Database
    public: str
    private: str

    @property
    def direct(self) -> str:
        """Return the id of the room of ann and ben."""
        return direct_room_id("ann", "ben")

    async def fill(self) -> None:
        """Store the rooms, with the indexes of 0.2."""
        for name, indexes in INDEXES.items():
            await self.database[name].create_indexes(list(indexes))
        await self.database["rooms"].insert_many(self._rooms())
        await self.database["members"].insert_many(self._members())
        await self.database["messages"].insert_many(self._messages())
        await self.database["partitions"].insert_one({"_id": 0, "term": 2})

    def _rooms(self) -> list[Document]:
        direct = old_room(self.direct, "private", DIRECT_MESSAGES, 2)
        return [
            old_room(self.public, "public", PUBLIC_KNOWN, 5),  # a wrong count, which 0.2 repairs when it loads the room
            old_room(self.private, "private", PRIVATE_MESSAGES, 2),
            direct | {"name": "Direct message", "words": ["direct", "message"], "direct": ["ann", "ben"]},
            old_room(DELETED, "group", DELETED_MESSAGES, 1) | {"deleted": True},
            *(old_room(f"room_quiet_{number}", "public", 0, 1) for number in range(3)),
        ]

    def _members(self) -> list[Document]:
        return [
            old_member(self.public, "ann", 6),
            old_member(self.public, "ben", 7) | {"online": True},
            old_member(self.public, "cat", 2, active=False),
            old_member(self.public, "dan", 3),
            old_member(self.private, "ann", 4),
            old_member(self.private, "ben", 3),
            old_member(self.private, "cat", 1, active=False),
            old_removed_member(self.private, "dan"),
            old_member(self.direct, "ann", 2),
            old_member(self.direct, "ben", 3),
            old_member(DELETED, "ann", 4),
            old_member(LOST, "ann", 0),  # its room was never stored
            *(old_member(f"room_quiet_{number}", "ann", 0) for number in range(3)),
        ]

    def _messages(self) -> list[Document]:
        return [
            *old_messages(self.public, PUBLIC_MESSAGES),
            *old_messages(self.private, PRIVATE_MESSAGES),
            *old_messages(self.direct, DIRECT_MESSAGES),
            *old_messages(DELETED, DELETED_MESSAGES),
        ]

    # The writes of an old process ------------------------------------------------------------------------------------

    async def renew_lease(self, node_id: str, now_ms: int) -> None:
        """Take or renew the lease of a replica."""
        lease = {"kind": "chat", "expiresAtMs": now_ms + LEASE_MS}
        await self.database["nodes"].update_one({"_id": node_id}, {"$set": lease}, upsert=True)

    async def keep_lease(self, node_id: str, interval_s: float) -> None:
        """Renew a lease until cancelled."""
        now_ms = CREATED_MS
        while True:
            await self.renew_lease(node_id, now_ms)
            now_ms += 1
            await asyncio.sleep(interval_s)

    async def insert_messages(self, messages: Sequence[Document]) -> None:
        """Store messages."""
        await self.database["messages"].insert_many(messages, ordered=True)

    async def put_member(self, member: Document) -> None:
        """Write a membership as an owner of term 3 does."""
        fields = {name: value for name, value in member.items() if name not in ("_id", "readSeq", "online")}
        change = {"$set": fields | {"term": 3}, "$max": {"readSeq": member["readSeq"]}}
        write: UpdateOne = UpdateOne({"_id": member["_id"], "term": {"$lte": 3}}, change, upsert=True)
        await self.database["members"].bulk_write([write], ordered=False)

    async def put_read_mark(self, member: Document, seq: int) -> None:
        """Move a read mark forward."""
        write: UpdateOne = UpdateOne({"_id": member["_id"]}, {"$max": {"readSeq": seq}})
        await self.database["members"].bulk_write([write], ordered=False)

    async def put_room(self, room: Document) -> None:
        """Write the record of a room over the version that was read; version 0 is a new room."""
        chosen = {"_id": room["_id"], "version": room["version"]}
        write = ReplaceOne(chosen, room | {"version": room["version"] + 1}, upsert=room["version"] == 0)
        await self.database["rooms"].bulk_write([write], ordered=False)

    async def advance_room(self, room: Document) -> None:
        """Move the record of a room forward to its next message."""
        write: UpdateOne = UpdateOne({"_id": room["_id"]}, {"$max": {"lastSeq": room["lastSeq"] + 1}})
        await self.database["rooms"].bulk_write([write], ordered=False)
