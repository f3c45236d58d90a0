"""An internal service that publishes notifications while a demonstration goes on."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence

import aio_pika

from tests.support.events import EXCHANGE, cloud_event

CONFIRM_TIMEOUT_S = 10.0


class NotificationPublisher:
    """Publishes to users in turn, each event until the broker has confirmed it. `published` counts events by user."""

    def __init__(self, amqp_url: str, users: Sequence[str]) -> None:
        self.published: Counter[str] = Counter()
        self._amqp_url = amqp_url
        self._users = users
        self._numbers = itertools.count()

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Publish `rate` events per second until `stop` is set."""
        async with await aio_pika.connect(self._amqp_url) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange(EXCHANGE)
            for number in self._numbers:
                if stop.is_set():
                    return
                user = self._users[number % len(self._users)]
                data = {"userId": user, "title": f"event {number}", "message": "an order was filled"}
                body = cloud_event(f"demo-{number}", "notification.created", data)
                message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await exchange.publish(message, "notification.created", timeout=CONFIRM_TIMEOUT_S)
                self.published[user] += 1
                await asyncio.sleep(1 / rate)
