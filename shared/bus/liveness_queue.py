"""A queue that ends with its process, and the check whether another process's queue still exists.

The queue is exclusive: the broker deletes it with the connection, which a killed process loses at once and a frozen one
keeps. So a missing queue proves that the process is dead or cut off from the broker; an existing one proves nothing.

It has a separate connection, so that nothing else that the process does at the broker can close it.
"""

import asyncio
from contextlib import suppress
from typing import cast

import aiormq
from aio_pika.abc import AbstractChannel

from shared.backoff import Backoff
from shared.bus.amqp import (
    CALL_TIMEOUT_S,
    CLOSE_TIMEOUT_S,
    CONNECTION_LOST_ERRORS,
    connect,
    is_gone,
    translate_channel_closed,
)
from shared.bus.hosts import BrokerHosts
from shared.telemetry import logs

log = logs.get(__name__)

HEARTBEAT_S = 5
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 1.0
ANSWER_TIMEOUT_S = 0.3  # measured: the broker answers within 14 ms


class LivenessQueue:
    """The queue of one process, under a new name at each connection: an old name may stay in use for seconds."""

    def __init__(self, url: str, name: str) -> None:
        self._hosts = BrokerHosts(url)
        self._name = name
        self._number = 0
        self._leaving = False
        self._channel: AbstractChannel | None = None
        self.queue: str | None = None  # None while not connected

    async def run(self) -> None:
        """Stay connected until `leave` or cancellation."""
        backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        while not self._leaving:  # aio-pika may swallow a cancellation
            try:
                with translate_channel_closed():
                    await self._run_connection(backoff)
            except CONNECTION_LOST_ERRORS as error:
                log.warning("liveness_queue_lost", reason=str(error) or type(error).__name__)
            finally:
                self.queue = self._channel = None
            await asyncio.sleep(backoff.next_s())

    def leave(self) -> None:
        """Do not connect again."""
        self._leaving = True

    async def _run_connection(self, backoff: Backoff) -> None:
        """Connect, declare the queue, and return or raise once the connection is lost."""
        connection = await connect(self._hosts, f"{self._name} life", HEARTBEAT_S)
        closed = asyncio.Event()
        try:
            connection.close_callbacks.add(lambda *_: closed.set())
            channel = connection.channel(publisher_confirms=True, on_return_raises=True)
            channel.close_callbacks.add(lambda *_: closed.set())
            await channel.initialize(timeout=CALL_TIMEOUT_S)
            self._number += 1
            name = f"life.{self._name}.{self._number}"
            await channel.declare_queue(
                name, exclusive=True, durable=False, arguments={"x-max-length": 1}, timeout=CALL_TIMEOUT_S
            )
            underlay = cast(aiormq.Channel, await channel.get_underlay_channel())
            underlay.on_consumer_cancel_callbacks.add(lambda *_: closed.set())  # somebody deleted the queue
            await underlay.basic_consume(name, _drop, no_ack=True, timeout=CALL_TIMEOUT_S)
            self.queue, self._channel = name, channel
            backoff.reset()
            await closed.wait()
        except RuntimeError as error:  # aio-pika raises it for a connection that has just closed
            raise ConnectionError(str(error)) from error
        finally:
            with suppress(*CONNECTION_LOST_ERRORS):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await connection.close()

    async def is_gone(self, queue: str) -> bool:
        """Return whether the broker has no such queue; False if it does not answer within 0.3 s."""
        if self._channel is None:
            return False
        try:
            return await is_gone(self._channel, queue, ANSWER_TIMEOUT_S)
        except CONNECTION_LOST_ERRORS:
            return False


async def _drop(_: aiormq.abc.DeliveredMessage) -> None:
    """Take a probe. The queue has a consumer only because the broker notifies consumers when a queue is deleted."""
