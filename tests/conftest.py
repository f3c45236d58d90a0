"""What all tests share: one broker and one database a session, an empty database name and empty queues a test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from shared.ids import Prefix, new_id
from shared.mongo import Document
from tests.support.infrastructure import Infrastructure
from tests.support.queues import empty_queues

# What an example costs on a machine that others use as well says nothing about the code.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")


@pytest.fixture(scope="session")
def infrastructure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Infrastructure]:
    """A broker and a database of this session's own."""
    directory: Path = tmp_path_factory.mktemp("infrastructure")
    with Infrastructure(directory) as started:
        yield started


@pytest.fixture
async def amqp_url(infrastructure: Infrastructure) -> str:
    """The broker, all of its lasting queues empty."""
    await empty_queues(infrastructure.amqp_url)
    return infrastructure.amqp_url


@pytest.fixture(scope="session")
def mongodb_uri(infrastructure: Infrastructure) -> str:
    """The database server."""
    return infrastructure.mongodb_uri


@pytest.fixture
async def database_name(mongodb_uri: str) -> AsyncIterator[str]:
    """A database that is this test's alone, and gone after it."""
    name = new_id(Prefix.COMMAND)
    yield name
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(mongodb_uri)
    await client.drop_database(name)
    client.close()
