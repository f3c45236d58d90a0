"""The metrics of queues, consumers and the database, read as a scraper reads them."""

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from shared.bus.bus import Bus
from shared.bus.consumer import Line
from shared.bus.topology import NOTIFIER_QUERY, REQUESTS
from shared.commands.chat_queries import GetRoom
from shared.commands.command import Caller
from shared.encoding import to_json
from shared.ids import Prefix, new_id
from shared.mongo import Mongo
from shared.times import now_ms
from tests.support.waiting import until

TIMEOUT_S = 20.0


def value(name: str, **labels: str) -> float:
    """Return a sample of this process; 0 if it is absent."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def exists(name: str, **labels: str) -> bool:
    return REGISTRY.get_sample_value(name, labels) is not None


def command(made_ms: int) -> bytes:
    """Return a command line whose id was made at that time."""
    asked = GetRoom(id=new_id(Prefix.COMMAND), deadline_ms=made_ms + 60_000, caller=Caller(user_id="u"), room_id="r")
    return to_json(asked)


@pytest.fixture
async def bus(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bus]:
    monkeypatch.setattr("shared.bus.bus.MEASURE_INTERVAL_S", 0.05)
    async with Bus(amqp_url, new_id(Prefix.NODE)) as connected:
        await connected.wait_connected()
        yield connected


async def test_backlog_gauges_follow_consumer(bus: Bus) -> None:
    """One AMQP message is in hand, one waits here, three wait at the broker."""
    may_go = asyncio.Event()

    async def handle(lines: list[Line]) -> None:
        await may_go.wait()

    waited = value("bus_wait_seconds_count", queue=NOTIFIER_QUERY)
    for _ in range(5):
        await bus.publish(REQUESTS, NOTIFIER_QUERY, command(now_ms()))
    consumer = await bus.consume(NOTIFIER_QUERY, handle, prefetch=2, max_lines=1)
    await until(lambda: value("bus_queue_depth", queue=NOTIFIER_QUERY) == 3, TIMEOUT_S)
    await until(lambda: value("bus_backlog_lines", queue=NOTIFIER_QUERY) == 1, TIMEOUT_S)
    before_s = value("bus_oldest_seconds", queue=NOTIFIER_QUERY)
    assert before_s > 0
    await until(lambda: value("bus_oldest_seconds", queue=NOTIFIER_QUERY) > before_s, TIMEOUT_S)
    assert value("bus_wait_seconds_count", queue=NOTIFIER_QUERY) == waited + 1

    may_go.set()
    await until(lambda: value("bus_oldest_seconds", queue=NOTIFIER_QUERY) == 0, TIMEOUT_S)
    await until(lambda: value("bus_queue_depth", queue=NOTIFIER_QUERY) == 0, TIMEOUT_S)
    assert value("bus_wait_seconds_count", queue=NOTIFIER_QUERY) == waited + 5
    await bus.stop(consumer)
    assert not exists("bus_queue_depth", queue=NOTIFIER_QUERY)
    assert not exists("bus_oldest_seconds", queue=NOTIFIER_QUERY)


async def expiring_queue(amqp_url: str, name: str) -> str:
    """Declare a queue that expires after a minute without a consumer."""
    async with await aio_pika.connect(amqp_url) as connection:
        await (await connection.channel()).declare_queue(name, arguments={"x-expires": 60_000})
    return name


async def test_label_of_process_queue_has_no_id(bus: Bus, amqp_url: str) -> None:
    done = asyncio.Event()

    async def handle(_: list[Line]) -> None:
        done.set()

    queue = await expiring_queue(amqp_url, f"rates.{bus.name}")
    taken = value("bus_lines_taken_total", queue="rates.*")
    await bus.consume(queue, handle)
    await bus.publish("", queue, b"{}")
    async with asyncio.timeout(TIMEOUT_S):
        await done.wait()
    assert value("bus_lines_taken_total", queue="rates.*") == taken + 1
    assert bus.name not in generate_latest().decode()


async def test_deleted_queue_is_declared_and_consumed_again(bus: Bus, amqp_url: str) -> None:
    arrived = asyncio.Event()

    async def handle(_: list[Line]) -> None:
        arrived.set()

    await bus.consume(NOTIFIER_QUERY, handle)
    async with await aio_pika.connect(amqp_url) as connection:
        await (await connection.channel()).queue_delete(NOTIFIER_QUERY)
    reconnects = value("bus_reconnects_total")
    await until(lambda: value("bus_reconnects_total") > reconnects and bus.is_connected, TIMEOUT_S)
    await bus.publish(REQUESTS, NOTIFIER_QUERY, b"{}")
    async with asyncio.timeout(TIMEOUT_S):
        await arrived.wait()
    await until(lambda: exists("bus_queue_depth", queue=NOTIFIER_QUERY), TIMEOUT_S)


async def test_database_commands_are_timed_by_collection(mongodb_uri: str, database_name: str) -> None:
    mongo = Mongo(mongodb_uri, database_name)
    timed = value("mongo_seconds_count", collection="rooms", command="insert")
    pinged = value("mongo_seconds_count", collection="none", command="ping")
    failed = value("mongo_failures_total", collection="rooms", command="aggregate")
    await mongo.database["rooms"].insert_many([{"_id": number} for number in range(300)])
    assert await mongo.readiness() is None
    found = await mongo.database["rooms"].find({}, batch_size=100).to_list(None)
    with pytest.raises(Exception, match="noSuchStage"):
        await mongo.database["rooms"].aggregate([{"$noSuchStage": {}}]).to_list(None)
    mongo.close()
    assert len(found) == 300
    assert value("mongo_seconds_count", collection="rooms", command="insert") == timed + 1
    assert value("mongo_seconds_count", collection="rooms", command="getMore") >= 1
    assert value("mongo_seconds_count", collection="none", command="ping") == pinged + 1
    assert value("mongo_failures_total", collection="rooms", command="aggregate") == failed + 1


async def test_unavailable_database_is_reported_within_two_seconds() -> None:
    mongo = Mongo("mongodb://127.0.0.1:9/", "realtime")
    started_s = asyncio.get_running_loop().time()
    reason = await mongo.readiness()
    assert asyncio.get_running_loop().time() - started_s < 2
    assert reason is not None
    assert reason.startswith("database: ")
    mongo.close()


def test_exposition_can_be_scraped() -> None:
    families = list(text_string_to_metric_families(generate_latest().decode()))
    assert {"bus_connected", "mongo_seconds", "event_loop_lag_seconds"} <= {family.name for family in families}
    assert not [family.name for family in families if family.name.endswith("_created")]
