"""Deliveries out, and their confirms awaited."""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from notifier import metrics
from shared.bus.delivery import Delivery


class Publisher(Protocol):
    """What is needed of the bus."""

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        """Send a delivery; the future is its confirm."""


async def confirmed(bus: Publisher, deliveries: Iterable[Delivery]) -> None:
    """Send deliveries and return when the broker has confirmed them. Raises Unavailable."""
    confirms = [bus.deliver(delivery) for delivery in deliveries]
    for confirm in dict.fromkeys(confirms):  # many lines share one AMQP message, and so one confirm
        await confirm
    metrics.DELIVERIES.inc(len(confirms))
