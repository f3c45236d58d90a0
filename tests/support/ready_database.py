"""A database with its indexes, for tests that use stores without their service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.mongo import Database, Indexes, Mongo


@asynccontextmanager
async def ready_database(uri: str, name: str, indexes: Indexes) -> AsyncIterator[Database]:
    """Yield the database once it has these indexes."""
    mongo = Mongo(uri, name)
    try:
        await mongo.wait_ready(indexes)
        yield mongo.database
    finally:
        mongo.close()
