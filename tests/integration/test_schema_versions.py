"""A release does not start on a database that a newer one has written."""

import asyncio
import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from shared.mongo import Document
from shared.process.lifecycle import EXIT_DATABASE_TOO_NEW
from shared.schema_store import COLLECTION, Schema
from shared.version import VERSION
from tests.support.ready_database import ready_database
from tests.support.service_process import service_processes

SERVICES = ("chat_service", "market_feed", "notifier")
END_TIMEOUT_S = 30.0
NEWER = {"version": 1_000, "release": "9.9.9"}


@dataclass
class Stored:
    """The database of a test."""

    environment: dict[str, str]
    client: "AsyncIOMotorClient[Document]"
    name: str

    async def schema(self, service: str) -> Document | None:
        return await self.client[self.name][COLLECTION].find_one({"_id": service})


@pytest.fixture
def stored(amqp_url: str, mongodb_uri: str, database_name: str) -> Iterator[Stored]:
    environment = {
        "AMQP_URL": amqp_url,
        "MONGODB_URI": mongodb_uri,
        "MONGODB_DATABASE": database_name,
        "ADMIN_HOST": "127.0.0.1",
    }
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(mongodb_uri)
    yield Stored(environment, client, database_name)
    client.close()


@pytest.mark.parametrize("service", SERVICES)
async def test_service_refuses_database_of_newer_release(service: str, stored: Stored) -> None:
    await stored.client[stored.name][COLLECTION].insert_one({"_id": service, **NEWER})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        service,
        env={**os.environ, **stored.environment, "ADMIN_PORT": "0", "LOG_FORMAT": "json"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), END_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode()
    assert process.returncode == EXIT_DATABASE_TOO_NEW, said
    assert "database_too_new" in said
    assert f"schema 1000 of {service}, written by release 9.9.9; release {VERSION}" in said
    assert await stored.client[stored.name].list_collection_names() == [COLLECTION]  # nothing was written


@pytest.mark.parametrize("service", SERVICES)
async def test_service_records_its_schema(service: str, stored: Stored) -> None:
    schema: Schema = importlib.import_module(f"{service}.__main__").SCHEMA
    async with service_processes(service, stored.environment) as (process,):
        await process.ready()
        assert await stored.schema(service) == {"_id": service, "version": schema.version, "release": VERSION}


async def test_newer_release_raises_recorded_version(stored: Stored) -> None:
    async with ready_database(stored.environment["MONGODB_URI"], stored.name, {}) as database:
        await Schema("worker", 1).claim(database)
        await Schema("worker", 3).claim(database)
        await Schema("worker", 3).claim(database)
        assert (await stored.schema("worker") or {})["version"] == 3
