"""Every fault of the database proxy, as PyMongo reports it, against the content of the database."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo.errors import AutoReconnect, NetworkTimeout, NotPrimaryError, WriteConcernError

from shared.mongo import HEARTBEAT_MS, Document
from tests.support.database_proxy import (
    EMPTY_BATCH,
    AnswerInstead,
    CutCommand,
    CutReply,
    DatabaseProxy,
    DelayReply,
    FailWriteConcern,
    HoldCommand,
    RefuseCommand,
    SwallowReply,
    database_proxy,
    hiding,
)
from tests.support.waiting import until_async

Items = AsyncIOMotorCollection[Document]

TIMEOUT_S = 0.5


@pytest.fixture
async def proxy(mongodb_uri: str) -> AsyncIterator[DatabaseProxy]:
    async with database_proxy(mongodb_uri) as running:
        yield running


@pytest.fixture
async def items(proxy: DatabaseProxy, database_name: str) -> AsyncIterator[Items]:
    """Yield a collection behind the proxy; the driver repeats nothing by itself."""
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
        proxy.uri,
        retryWrites=False,
        retryReads=False,
        socketTimeoutMS=round(TIMEOUT_S * 1000),
        heartbeatFrequencyMS=HEARTBEAT_MS,
    )
    await client.admin.command("ping")
    yield client[database_name]["items"]
    client.close()


@pytest.fixture
async def stored(mongodb_uri: str, database_name: str) -> AsyncIterator[Items]:
    """Yield the same collection without the proxy."""
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(mongodb_uri)
    yield client[database_name]["items"]
    client.close()


async def count(items: Items) -> int:
    return await items.count_documents({})


async def test_commands_without_rule_pass_unchanged(items: Items, proxy: DatabaseProxy) -> None:
    await items.insert_many([{"_id": number} for number in range(1_000)])
    assert len(await items.find().sort("_id").to_list(None)) == 1_000
    assert proxy.seen["insert", "items"] == 1
    assert proxy.seen["getMore", "items"] >= 1


async def test_delayed_reply_arrives_late_and_write_lands_at_once(
    items: Items, stored: Items, proxy: DatabaseProxy
) -> None:
    rule = proxy.inject(DelayReply(0.2), "insert", times=1)
    began_s = time.monotonic()
    inserting = asyncio.ensure_future(items.insert_one({"_id": 1}))
    await rule.done()
    assert await count(stored) == 1
    assert not inserting.done()
    await inserting
    assert time.monotonic() - began_s >= 0.2
    await items.insert_one({"_id": 2})
    assert len(rule.hits) == 1


async def test_swallowed_reply_times_out_and_write_lands(items: Items, stored: Items, proxy: DatabaseProxy) -> None:
    proxy.inject(SwallowReply(), "update", collection="items", times=1)
    with pytest.raises(NetworkTimeout):
        await items.update_one({"_id": 1}, {"$set": {"done": True}}, upsert=True)
    assert await count(stored) == 1


async def test_cut_reply_leaves_write_with_unknown_outcome(items: Items, stored: Items, proxy: DatabaseProxy) -> None:
    proxy.inject(CutReply(), "findAndModify", times=1)
    with pytest.raises(AutoReconnect):
        await items.find_one_and_update({"_id": 1}, {"$inc": {"tries": 1}}, upsert=True)
    assert await count(stored) == 1
    await items.find_one_and_update({"_id": 1}, {"$inc": {"tries": 1}}, upsert=True)
    assert (await stored.find_one({"_id": 1}) or {})["tries"] == 2


async def test_cut_command_never_lands(items: Items, stored: Items, proxy: DatabaseProxy) -> None:
    proxy.inject(CutCommand(), "insert", times=1)
    with pytest.raises(AutoReconnect):
        await items.insert_one({"_id": 1})
    assert await count(stored) == 0


async def test_held_command_lands_after_its_client_gave_up(items: Items, stored: Items, proxy: DatabaseProxy) -> None:
    rule = proxy.inject(HoldCommand(), "insert", where=lambda command: command.document["documents"][0]["_id"] == 1)
    with pytest.raises(NetworkTimeout):
        await items.insert_one({"_id": 1})
    await items.insert_one({"_id": 2})
    assert await count(stored) == 1
    rule.release()
    await rule.done()
    assert await count(stored) == 2


async def test_released_command_is_answered(items: Items, proxy: DatabaseProxy) -> None:
    rule = proxy.inject(HoldCommand(), "insert")
    inserting = asyncio.ensure_future(items.insert_one({"_id": 1}))
    await rule.hit()
    rule.release()
    assert (await inserting).inserted_id == 1


async def test_write_concern_error_is_reported_beside_a_made_write(
    items: Items, stored: Items, proxy: DatabaseProxy
) -> None:
    proxy.inject(FailWriteConcern(), "insert", times=1)
    with pytest.raises(WriteConcernError) as raised:
        await items.insert_one({"_id": 1})
    assert raised.value.code == 64
    assert await count(stored) == 1


async def test_refused_command_reports_not_primary_and_has_no_effect(
    items: Items, stored: Items, proxy: DatabaseProxy
) -> None:
    proxy.inject(RefuseCommand(), "insert", times=1)
    with pytest.raises(NotPrimaryError):
        await items.insert_one({"_id": 1})
    assert await count(stored) == 0
    await items.insert_one({"_id": 1})


async def test_answer_in_place_of_the_database_is_a_stale_read(items: Items, proxy: DatabaseProxy) -> None:
    await items.insert_one({"_id": 1})
    rule = proxy.inject(AnswerInstead(EMPTY_BATCH), "find", "aggregate")
    assert await items.find().to_list(None) == []
    rule.remove()
    assert await items.find().to_list(None) == [{"_id": 1}]


async def test_stale_read_misses_hidden_documents(items: Items, proxy: DatabaseProxy) -> None:
    await items.insert_many([{"_id": number} for number in range(300)])
    proxy.inject(hiding(lambda document: document["_id"] in (0, 299)), "find", "getMore")
    assert [item["_id"] async for item in items.find().sort("_id")] == list(range(1, 299))


async def test_newest_rule_decides(items: Items, proxy: DatabaseProxy) -> None:
    proxy.inject(RefuseCommand(), collection="items")
    exception = proxy.inject(DelayReply(0.0), "insert", times=1)
    await items.insert_one({"_id": 1})
    assert len(exception.hits) == 1
    with pytest.raises(NotPrimaryError):
        await items.insert_one({"_id": 2})


async def test_clear_removes_rules_and_releases_held_commands(
    items: Items, stored: Items, proxy: DatabaseProxy
) -> None:
    rule = proxy.inject(HoldCommand(), "insert")
    inserting = asyncio.ensure_future(items.insert_one({"_id": 1}))
    await rule.hit()
    proxy.clear()
    await inserting
    await items.insert_one({"_id": 2})
    await until_async(lambda: count(stored), lambda found: found == 2)


async def test_cut_all_disconnects_clients_and_new_connections_pass(items: Items, proxy: DatabaseProxy) -> None:
    rule = proxy.inject(SwallowReply(), "insert", times=1)
    inserting = asyncio.ensure_future(items.insert_one({"_id": 1}))
    await rule.done()
    proxy.cut_all()
    with pytest.raises(AutoReconnect):
        await inserting
    assert await count(items) == 1
