"""No query of chat_service scans a collection; see tests/bench/plans.py."""

from collections.abc import AsyncIterator

import pytest

from shared.mongo import Database, Mongo
from tests.bench.plans import INDEXES, calls_not_made, explain, explained, fill
from tests.bench.store_call import StoreCall

ROOM = "room_history"
MESSAGES = 500


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    mongo = Mongo(mongodb_uri, database_name)
    await mongo.wait_ready(INDEXES)
    await fill(mongo.database, ROOM, MESSAGES, rooms=200, users=100)
    yield mongo.database
    mongo.close()


async def test_every_query_uses_an_index(mongodb_uri: str, database_name: str, database: Database) -> None:
    plans, made = await explained(mongodb_uri, database_name, ROOM, MESSAGES)
    assert calls_not_made(made) == set()
    assert len(plans) >= len(made) - 3  # inserts, and calls that found nothing to do, have none
    faults = [(str(plan), plan.faults) for plan in plans if plan.faults]
    assert not faults, "\n".join(map(str, faults))


async def test_query_without_index_is_detected(database: Database) -> None:
    async def nothing() -> None:
        pass

    plan = await explain(
        database, StoreCall("bad", nothing), "find room_log", {"find": "room_log", "filter": {"text": "no such text"}}
    )
    assert plan.faults == ["a collection scan", f"examines {plan.docs_examined} to return 0"]
    assert plan.docs_examined >= MESSAGES
