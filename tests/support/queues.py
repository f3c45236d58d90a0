"""The broker's lasting queues, between one test and the next."""

import aio_pika

from shared.bus.topology import queues


async def empty_queues(amqp_url: str) -> None:
    """Purge all lasting queues that exist."""
    async with await aio_pika.connect(amqp_url) as connection:
        for spec in queues():
            channel = await connection.channel()
            try:
                await (await channel.get_queue(spec.name)).purge()
            except aio_pika.exceptions.ChannelNotFoundEntity:
                continue
            await channel.close()
