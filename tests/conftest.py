"""Fixtures of all tests: one broker and one database per session, empty queues and an empty database name per test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from shared.ids import Prefix, new_id
from shared.mongo import Document
from tests.support.infrastructure import Infrastructure
from tests.support.queues import empty_queues

# The duration of an example on a shared machine says nothing about the code.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")


@pytest.fixture(scope="session")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """Yield the session's broker and database."""
    directory: Path = tmp_path_factory.mktemp("infrastructure")
    with Infrastructure(directory) as started:
        yield started


@pytest.fixture
async def amqp_url(infrastructure: Infrastructure) -> str:
    """Return the broker's address, with all durable queues empty."""
    await empty_queues(infrastructure.amqp_url)
    return infrastructure.amqp_url


@pytest.fixture(scope="session")
def mongodb_uri(infrastructure: Infrastructure) -> str:
    """Return the database server's address."""
    return infrastructure.mongodb_uri


@pytest.fixture
async def database_name(mongodb_uri: str) -> AsyncIterator[str]:
    """Yield a database name of this test's own; the database is dropped afterwards."""
    name = new_id(Prefix.COMMAND)
    yield name
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(mongodb_uri)
    await client.drop_database(name)
    client.close()
