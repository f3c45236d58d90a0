"""A stand-in for the sending half of the bus; tests override the methods that their subject calls."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from shared.bus.delivery import Delivery


class PublisherStub:
    """Implements `shared.bus.publisher.Publisher`. A method that is not overridden fails the test."""

    is_connected = True

    def publish(self, exchange: str, key: str, line: bytes) -> "asyncio.Future[None]":
        raise AssertionError(f"unexpected line for {exchange} {key}")

    def deliver(self, delivery: Delivery) -> "asyncio.Future[None]":
        raise AssertionError(f"unexpected delivery on {delivery.channel}")

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        raise AssertionError(f"unexpected work: {work}")

    def reply(self, reply_to: str, line: bytes) -> "asyncio.Future[None]":
        raise AssertionError(f"unexpected reply to {reply_to}")
