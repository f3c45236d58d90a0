"""All processes find the same generation, and a new one after the collection was dropped."""

import asyncio

from shared.generation_store import COLLECTION, DatabaseGeneration
from tests.support.ready_database import ready_database


async def known(generation: DatabaseGeneration) -> str:
    await asyncio.wait_for(generation.wait_known(), 30)
    return generation.id


async def test_processes_that_start_together_agree(mongodb_uri: str, database_name: str) -> None:
    async with ready_database(mongodb_uri, database_name, {}) as database:
        found = await asyncio.gather(*(known(DatabaseGeneration(database)) for _ in range(8)))
        assert len(set(found)) == 1
        assert await database[COLLECTION].count_documents({}) == 1


async def test_generation_is_new_after_collection_was_dropped(mongodb_uri: str, database_name: str) -> None:
    async with ready_database(mongodb_uri, database_name, {}) as database:
        before = await known(DatabaseGeneration(database))
        assert await known(DatabaseGeneration(database)) == before
        await database[COLLECTION].drop()
        assert await known(DatabaseGeneration(database)) != before
