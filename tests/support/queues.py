"""Clean-up of the broker's durable queues between tests."""

import aio_pika

from shared.bus.topology import queues


async def empty_queues(amqp_url: str) -> None:
    """Purge all existing durable queues."""
    async with await aio_pika.connect(amqp_url) as connection:
        for spec in queues():
            channel = await connection.channel()
            try:
                await (await channel.get_queue(spec.name)).purge()
            except aio_pika.exceptions.ChannelNotFoundEntity:
                continue
            await channel.close()
