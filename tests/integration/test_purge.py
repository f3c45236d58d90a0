"""The purge of deleted rooms, on the real database."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.storage.purge import purge_deleted_rooms
from shared.mongo import Database
from shared.protocol.server_frames import UserProfile
from shared.times import MILLISECONDS_PER_DAY
from tests.bench.plans import INDEXES
from tests.support.chat_world import PRIVATE, PUBLIC, Act, ChatWorld, Turn
from tests.support.ready_database import ready_database
from tests.support.waiting import until_async

NAMES = ("Ben", "Cat", "Room", "text of")


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        yield database


async def raw_log(database: Database, room_id: str) -> str:
    """Return the documents of a room's log as one text."""
    return str(await database["room_log"].find({"roomId": room_id}).sort("rev", 1).to_list(None))


async def purged(world: ChatWorld, step: int) -> list[LogEntry]:
    """Run the purge until its steps on the private room are done. Returns the log after them."""
    due = {"_id": world.rooms[PRIVATE], "purgeDueMs": 0 if step == 0 else {"$gt": 0}}
    purge = asyncio.create_task(
        purge_deleted_rooms(world.store, world.messages, world.room_log, world.index, lambda: world.now_ms)
    )
    await until_async(lambda: world.database["room_records"].count_documents(due), lambda count: count == 0)
    purge.cancel()
    return await world.room_log.after(world.rooms[PRIVATE], 0)


async def test_purge_erases_names_and_texts_and_later_all_but_the_last_entry(database: Database) -> None:
    world = ChatWorld(database)
    acts = [Act("create", PUBLIC, "ann"), Act("create", PRIVATE, "ann"), Act("leave", PRIVATE, "ben")]
    acts += [Act("join", PRIVATE, "ben"), Act("send", PRIVATE, "ben", "key"), Act("send", PUBLIC, "cat")]
    await world.take(Turn((*acts, Act("delete", PRIVATE, "ann"))))
    await world.end()
    private, public = world.rooms[PRIVATE], world.rooms[PUBLIC]
    before = await world.room_log.after(private, 0)
    others = await raw_log(database, public)
    assert {name for name in NAMES if name in await raw_log(database, private)} == {"Ben", "Room", "text of"}

    erased = await purged(world, 0)
    assert [(entry.rev, entry.kind) for entry in erased] == [(entry.rev, entry.kind) for entry in before]
    assert [name for name in NAMES if name in await raw_log(database, private)] == []
    effects = [effect for entry in erased for effect in entry.members]
    assert {effect.profile for effect in effects} == {UserProfile()}
    kept = [(effect.user_id, effect.is_joined, effect.is_invited) for effect in effects]
    assert kept == [(one.user_id, one.is_joined, one.is_invited) for entry in before for one in entry.members]
    settings = [entry.settings for entry in erased if entry.settings is not None]
    assert [(one.name, one.description, one.deleted) for one in settings] == [("", "", False), ("", "", True)]
    assert await raw_log(database, public) == others

    world.now_ms += MILLISECONDS_PER_DAY
    assert [(entry.rev, entry.kind) for entry in await purged(world, 1)] == [(before[-1].rev, EntryKind.DELETED)]
