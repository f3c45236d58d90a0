"""A client of notifier: publishes events with plain aio-pika, records deliveries, sends queries."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aio_pika
import msgspec

from shared.bus.batching import split_lines
from shared.bus.bus import Bus
from shared.bus.delivery import Delivery, inbox_channel
from shared.bus.topology import (
    DEAD,
    DELIVERIES,
    NOTIFIER_QUERY,
    NOTIFIER_TICKS,
    REQUESTS,
    SHARDS,
    shard_key,
)
from shared.commands.command import Caller, ServiceRequest
from shared.commands.market import AppliedTick, AppliedTicks
from shared.errors import Unavailable
from shared.ids import Prefix, new_id
from tests.support.events import EXCHANGE, cloud_event

C = TypeVar("C", bound=ServiceRequest)
R = TypeVar("R")

ANSWER_TIMEOUT_S = 30.0
TICK_AT_MS = 1_761_048_000_000


class NotifierClient:
    """Records every delivery; publishes events and ticks; queries as any user."""

    def __init__(self, bus: Bus, channel: aio_pika.abc.AbstractChannel) -> None:
        self.deliveries: list[Delivery] = []
        self._bus = bus
        self._channel = channel

    # Publishing -----------------------------------------------------------------------------------------------------

    async def publish(self, type_: str, data: Any, *, id_: str | None = None, **more: Any) -> str:
        """Publish an event and return its id; `more`, for example `audience` or `time`, is added as given."""
        id_ = id_ or new_id(Prefix.COMMAND)
        await self.publish_body(cloud_event(id_, type_, data, **more), type_)
        return id_

    async def notify(self, user_id: str, title: str = "t", **more: Any) -> str:
        """Publish a notification.created and return the event's id."""
        return await self.publish("notification.created", {"userId": user_id, "title": title, "message": "m"}, **more)

    async def publish_body(self, body: bytes, routing_key: str) -> None:
        """Publish any body, persistent and confirmed."""
        exchange = await self._channel.get_exchange(EXCHANGE, ensure=False)
        await exchange.publish(aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), routing_key)

    async def tick(self, symbol: str, *prices: float, first_seq: int = 1) -> None:
        """Announce applied ticks as market_feed does, confirmed."""
        ticks = [AppliedTick(symbol, price, seq, TICK_AT_MS) for seq, price in enumerate(prices, first_seq)]
        await self.command(NOTIFIER_TICKS, msgspec.json.encode(AppliedTicks(ticks=ticks)))

    async def command(self, key: str, line: bytes) -> None:
        """Publish any line to `realtime.commands`, confirmed."""
        await self._bus.publish(REQUESTS, key, line)

    # Queries --------------------------------------------------------------------------------------------------------

    async def ask(self, user_id: str, command: type[C], reply: type[R], **fields: Any) -> R:
        """Query as a user, retrying for 30 s without an answer. Raises Refusal."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while True:
                try:
                    question = command(
                        id=new_id(Prefix.COMMAND),
                        deadline_ms=self._bus.deadline_ms(),
                        caller=Caller(user_id=user_id),
                        **fields,
                    )
                    return await self._bus.request(NOTIFIER_QUERY, question, reply)
                except Unavailable:
                    await asyncio.sleep(0.1)

    # Observations ---------------------------------------------------------------------------------------------------

    def record(self, body: bytes) -> None:
        """Record a body of deliveries."""
        self.deliveries += map(Delivery.from_line, split_lines(body))

    def on(self, channel: str) -> list[Delivery]:
        """Return the deliveries of a channel in order of arrival."""
        return [delivery for delivery in self.deliveries if delivery.channel == channel]

    def inbox(self, user_id: str) -> list[Delivery]:
        """Return the deliveries of a user's inbox in order of arrival."""
        return self.on(inbox_channel(user_id))

    def titles(self, user_id: str) -> list[str]:
        """Return the titles that a gateway would deliver to a user: in seq order, each once."""
        by_seq = {delivery.position: frame_of(delivery)["data"]["title"] for delivery in self.inbox(user_id)}
        return [by_seq[seq] for seq in sorted(by_seq)]

    def has(self, channel: str, count: int) -> Callable[[], bool]:
        """Return a condition: `count` deliveries have arrived on a channel."""
        return lambda: len(self.on(channel)) >= count

    async def dead_letters(self) -> list[tuple[str, bytes]]:
        """Remove and return all dead letters: reason and body."""
        queue = await self._channel.get_queue(DEAD, ensure=False)
        found: list[tuple[str, bytes]] = []
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            found.append((str(message.headers["reason"]), message.body))
        return found


def frame_of(delivery: Delivery) -> Any:
    """Return the client frame of a delivery."""
    return json.loads(delivery.frame)


@asynccontextmanager
async def notifier_client(amqp_url: str) -> AsyncIterator[NotifierClient]:
    """Yield a client that records everything from now on."""
    bus = Bus(amqp_url, new_id(Prefix.NODE), request_timeout_s=2.0)
    async with await aio_pika.connect_robust(amqp_url) as connection:
        client = NotifierClient(bus, await connection.channel())
        queue = bus.private_queue("gateway", client.record)
        queue.bindings.update((DELIVERIES, shard_key(shard)) for shard in range(SHARDS))
        async with bus:
            await bus.wait_connected()
            yield client
