"""The sending half of the bus, as handlers see it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from shared.bus.delivery import Delivery


class Publisher(Protocol):
    """Sends lines, deliveries and replies. `Bus` is the implementation; tests put a recorder in its place."""

    @property
    def is_connected(self) -> bool:
        """Return whether the broker can be reached now."""

    def publish(self, exchange: str, key: str, line: bytes) -> "asyncio.Future[None]":
        """Send a line. The future resolves on the broker's confirm, or raises Unavailable."""

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        """Send a delivery to the gateways that listen to its shard; the future is its confirm."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        """Start a task that ends with the bus at the latest."""

    def reply(self, reply_to: str, line: bytes) -> "asyncio.Future[None]":
        """Send a reply line; the future is its confirm, and may be ignored."""
