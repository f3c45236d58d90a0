"""Events as an internal service publishes them: with plain aio-pika, following protocol.md."""

import json
from typing import Any

import aio_pika

EXCHANGE = "realtime.events"


def cloud_event(id_: str, type_: str, data: Any, **more: Any) -> bytes:
    """Return the body of an event; `more`, for example `audience` or `time`, is added as given."""
    event = {"specversion": "1.0", "id": id_, "source": "/services/tests", "type": type_, "data": data, **more}
    return json.dumps(event).encode()


async def publish(amqp_url: str, routing_key: str, *bodies: bytes) -> None:
    """Publish to `realtime.events` and return once the broker has confirmed all events."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange(EXCHANGE)
        for body in bodies:
            await exchange.publish(aio_pika.Message(body, content_type="application/json"), routing_key)
