"""Search words that an earlier version stored are refreshed once, on the real database."""

from collections.abc import AsyncIterator

import pytest

from chat_service.storage import search_words
from chat_service.storage.search_words import refresh_words
from shared.mongo import Database
from tests.bench.plans import INDEXES
from tests.support.ready_database import ready_database

NAME = "\u0939\u093f\u0928\u094d\u0926\u0940"
CUT = ["\u0926", "\u0928", "\u0939"]


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        yield database


async def test_stored_words_are_refreshed_once(database: Database) -> None:
    rooms = database["room_records"]
    count = search_words.BATCH + 2
    await rooms.insert_many([{"_id": f"room_{n:04d}", "name": NAME, "words": CUT, "rev": 1} for n in range(count)])
    await refresh_words(database)
    assert await rooms.count_documents({"words": [NAME]}) == count
    await rooms.update_one({"_id": "room_0000"}, {"$set": {"words": CUT}})
    await refresh_words(database)
    assert await rooms.count_documents({"words": [NAME]}) == count - 1


async def test_interrupted_refresh_continues(database: Database) -> None:
    rooms = database["room_records"]
    await rooms.insert_many([{"_id": f"room_{n}", "name": NAME, "words": CUT, "rev": 1} for n in range(3)])
    await database["migrations"].insert_one({"_id": search_words.NAME, "after": "room_0", "done": False})
    await refresh_words(database)
    found = await rooms.find({"words": [NAME]}, {"_id": 1}).to_list(None)
    assert {document["_id"] for document in found} == {"room_1", "room_2"}
