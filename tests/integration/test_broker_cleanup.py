"""Queues and exchanges of earlier releases are removed once no process of theirs needs them."""

import asyncio

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from chat_service import broker_cleanup
from chat_service.broker_cleanup import delete_old_topology
from shared.bus.bus import Bus
from shared.bus.topology import OLD_EXCHANGES, OLD_QUEUES
from shared.ids import Prefix, new_id
from tests.support.waiting import until_async

OLD_EXCHANGE = OLD_EXCHANGES[0]


async def exists(amqp_url: str, *, queue: str = "", exchange: str = "") -> bool:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        try:
            if queue:
                await channel.declare_queue(queue, passive=True)
            if exchange:
                await channel.declare_exchange(exchange, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return True


async def old_gateway(channel: AbstractChannel) -> None:
    """Declare what a gateway of 0.2 does."""
    exchange = await channel.declare_exchange(OLD_EXCHANGE, "direct", durable=True)
    deliveries = await channel.declare_queue(exclusive=True)
    await deliveries.bind(exchange, "d.1")


async def test_everything_old_is_removed_after_last_old_gateway(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_cleanup, "RETRY_FIRST_S", 0.05)
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            await old_gateway(channel)
            await channel.declare_queue(OLD_QUEUES[0], durable=True)
            cleaning = asyncio.create_task(delete_old_topology(bus))

            async def is_deleted() -> bool:
                return not await exists(amqp_url, queue=OLD_QUEUES[0])

            await until_async(is_deleted, bool)
            assert await exists(amqp_url, exchange=OLD_EXCHANGE)  # in use
            await channel.declare_queue(OLD_QUEUES[0], durable=True)  # the old process has reconnected
        await asyncio.wait_for(cleaning, 30)
    assert not await exists(amqp_url, exchange=OLD_EXCHANGE)
    assert not await exists(amqp_url, queue=OLD_QUEUES[0])


async def test_nothing_old_is_no_error(amqp_url: str) -> None:
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        await asyncio.wait_for(delete_old_topology(bus), 30)
        assert bus.is_connected
