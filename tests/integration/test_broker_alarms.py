"""A broker under an alarm (memory, disk): it delivers, but takes neither messages nor acknowledgements."""

import asyncio

import aio_pika
import pytest
from pamqp.common import FieldTable

from shared.bus import echo, kept_connection
from shared.bus.bus import Bus
from shared.bus.confirms import confirmed
from shared.bus.consumer import Line
from shared.bus.topology import DEAD
from shared.ids import Prefix, new_id
from tests.support.infrastructure import Infrastructure
from tests.support.waiting import until, until_async

ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "absolute", "1"), ("set_vm_memory_high_watermark", "absolute", "1GiB")),
    "disk": (("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "50MB")),
}
DELIVERIES_MAX = 3
RECONNECTS = 3 * DELIVERIES_MAX
SILENT_S = 0.3


@pytest.mark.parametrize("resource", ALARMS)
async def test_message_stays_in_its_queue_however_long_an_alarm_lasts(
    infrastructure: Infrastructure, amqp_url: str, monkeypatch: pytest.MonkeyPatch, resource: str
) -> None:
    """Each delivery that cannot be acknowledged counts; beyond its limit the broker makes the message a dead letter."""
    alarm, all_clear = ALARMS[resource]
    queue, sink = new_id(Prefix.EVENT), new_id(Prefix.EVENT)
    may_publish = asyncio.Event()
    handled: list[bytes] = []
    losses: list[None] = []

    async with await aio_pika.connect(amqp_url) as connection:
        await _declare_limited(connection, queue, sink)
        async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:

            async def handle(lines: list[Line]) -> None:
                await may_publish.wait()
                await confirmed([bus.publish("", sink, line.body) for line in lines])
                handled.extend(line.body for line in lines)

            await bus.wait_connected()
            bus.on_disconnected.append(lambda: losses.append(None))
            await bus.consume(queue, handle)
            await bus.publish("", queue, b"a margin call")
            try:
                await asyncio.to_thread(infrastructure.broker.control, *alarm)
                monkeypatch.setattr(echo, "TIMEOUT_S", SILENT_S)
                monkeypatch.setattr(kept_connection, "BACKOFF_MAX_S", 0.1)
                may_publish.set()
                await until(lambda: len(losses) >= RECONNECTS, 60.0)
                assert not bus.is_connected
                assert handled == []
            finally:
                await asyncio.to_thread(infrastructure.broker.control, *all_clear)
                monkeypatch.undo()  # without an alarm a busy machine may need longer than SILENT_S for an echo
            await until(lambda: len(handled) == 1, 20.0)
            await until_async(lambda: _depth(amqp_url, queue), lambda depth: depth == 0, 10.0)
    assert await _depth(amqp_url, DEAD) == 0
    assert await _depth(amqp_url, sink) == 1


async def _declare_limited(connection: aio_pika.abc.AbstractConnection, queue: str, sink: str) -> None:
    channel = await connection.channel()
    limited: FieldTable = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERIES_MAX,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": DEAD,
        "x-expires": 120_000,
    }
    await channel.declare_queue(queue, durable=True, arguments=limited)
    await channel.declare_queue(sink, durable=True, arguments={"x-expires": 120_000})


async def _depth(amqp_url: str, name: str) -> int:
    async with await aio_pika.connect(amqp_url) as connection:
        queue = await (await connection.channel()).declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0
