"""Sends lines with confirms: gathers them by destination, publishes their bodies, and reports each body's confirm.

Health is per destination. A destination for which the broker confirms nothing for 2 s (its queue is full, or its node
is frozen) refuses further lines; the others go on.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from shared.bus.amqp import CONNECTION_LOST_ERRORS
from shared.bus.batching import LineBatcher, Parcel
from shared.bus.broker_connection import BrokerConnection
from shared.bus.confirms import Confirm
from shared.errors import Unavailable
from shared.telemetry import metrics
from shared.times import now_ms

Destination = tuple[str, str | None, str | None]  # exchange; routing key, if it has only one; reply queue

STALLED_S = 2.0  # without a confirm: the broker is blocked (memory, disk), frozen, or cut off
GATHERED_MAX_BYTES = 64 * 1024 * 1024
DEFAULT_EXCHANGE = "default"  # the label of the exchange without a name


class Linked(Protocol):
    """The part of `KeptConnection` that sending needs."""

    @property
    def link(self) -> BrokerConnection | None:
        """Return the connection, or None while there is none."""


class LineSender:
    """The confirmed sending of one bus.

    `on_failed` takes the ids of commands that did not reach the broker, and the reason.
    """

    def __init__(
        self, connection: Linked, tasks: asyncio.TaskGroup, on_failed: Callable[[Iterable[str], str], None]
    ) -> None:
        self._connection = connection
        self._tasks = tasks
        self._on_failed = on_failed
        self._batcher: LineBatcher[Destination, Confirm] = LineBatcher(GATHERED_MAX_BYTES)
        self._flush_is_due = False
        self._unconfirmed: dict[Confirm, float] = {}  # since when, oldest first
        self._in_flight: dict[Destination, dict[Confirm, float]] = {}  # bodies on their way, oldest first; since when
        self._sent = 0

    @property
    def waiting_bytes(self) -> int:
        """Return the size of the lines that wait for the confirm of an earlier body."""
        return self._batcher.waiting_bytes

    def gather(self, destination: Destination, key: str, line: bytes, expires_at_ms: int | None = None) -> Confirm:
        """Add a line to the next body for its destination, and return the body's confirm."""
        if self._connection.link is None:
            return Confirm.failed("not connected to the broker")
        if self._in_flight and self._is_stalled(destination):
            return Confirm.failed("the broker confirms nothing for this destination")
        parcel = self._batcher.add(destination, key, line, self._new_confirm, expires_at_ms)
        if parcel is None:
            return Confirm.failed("too many lines wait for the broker")
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)
        return parcel.waiter

    def fail_stalled(self) -> None:
        """Fail the commands in bodies that the broker has not confirmed for 2 s."""
        for confirm, since_s in self._unconfirmed.items():
            if time.monotonic() - since_s <= STALLED_S:
                break
            self._on_failed(confirm.command_ids, "the broker confirms nothing")

    async def publish_confirmed(self, exchange: str, key: str, body: bytes, **properties: Any) -> None:
        """Publish a body; `properties` as `BrokerConnection.publish` takes them. Raises Unavailable."""
        if (link := self._connection.link) is None:
            raise Unavailable("not connected to the broker")
        started_s = time.perf_counter()
        try:
            await link.publish(exchange, key, body, **properties)
        except CONNECTION_LOST_ERRORS as error:
            metrics.BUS_SEND_FAILURES.labels(exchange or DEFAULT_EXCHANGE).inc()
            raise Unavailable(f"the broker did not confirm: {error or type(error).__name__}") from error
        metrics.BUS_CONFIRM_SECONDS.observe(time.perf_counter() - started_s)

    def _is_stalled(self, destination: Destination) -> bool:
        oldest_s = next(iter(self._in_flight.get(destination, {}).values()), math.inf)
        return time.monotonic() - oldest_s > STALLED_S

    def _new_confirm(self) -> Confirm:
        confirm = Confirm()
        self._unconfirmed[confirm] = time.monotonic()
        return confirm

    def _flush(self) -> None:
        self._flush_is_due = False
        for parcel in self._batcher.ready():
            self._tasks.create_task(self._send_parcel(parcel))

    async def _send_parcel(self, parcel: Parcel[Destination, Confirm]) -> None:
        exchange, _, reply_to = parcel.destination
        key, *more_keys = parcel.keys
        self._sent += 1
        in_flight = self._in_flight.setdefault(parcel.destination, {})
        in_flight[parcel.waiter] = time.monotonic()
        try:
            await self.publish_confirmed(
                exchange,
                key,
                parcel.body(),
                message_id=str(self._sent),  # aiormq's random ones cost more
                reply_to=reply_to,
                expires_in_ms=None if parcel.expires_at_ms is None else max(parcel.expires_at_ms - now_ms(), 1),
                headers={"CC": more_keys} if more_keys else None,  # https://www.rabbitmq.com/docs/sender-selected
            )
        except Unavailable as error:
            parcel.waiter.fail(error)
            self._on_failed(parcel.waiter.command_ids, str(error))
        else:
            parcel.waiter.resolve()
            metrics.BUS_BODIES_SENT.labels(exchange or DEFAULT_EXCHANGE).inc()
            metrics.BUS_LINES_SENT.labels(exchange or DEFAULT_EXCHANGE).inc(len(parcel.lines))
        finally:
            del self._unconfirmed[parcel.waiter]
            del in_flight[parcel.waiter]
            if not in_flight:
                del self._in_flight[parcel.destination]
            if self._batcher.arrived(parcel):
                self._flush()
