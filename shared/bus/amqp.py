"""Connecting to RabbitMQ with aio-pika: its errors, and a probe for a queue.

Only this module, the `broker_…` modules, `confirm_channel`, `delivery_tap` and `liveness_queue` use aio-pika or its
dependencies.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel

from shared.bus.delivery_tap import DeliveryTap, TappedTransports
from shared.bus.hosts import BrokerHosts

CALL_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
PROBE = b"\x00"
NO_ROUTE = 312  # AMQP 0-9-1: the reply code of a returned message

# The exceptions of aio-pika on a dying connection, whichever call they interrupt.
CONNECTION_LOST_ERRORS = (
    aiormq.exceptions.AMQPError,
    ConnectionError,
    OSError,
    TimeoutError,
    aiormq.exceptions.ChannelInvalidStateError,
)


@contextmanager
def translate_channel_closed() -> Iterator[None]:
    """Raise ConnectionError in place of the exceptions that aiormq raises in a waiting caller when the channel closes.

    It raises a bare Exception, or CancelledError in a task that nobody cancelled.
    """
    try:
        yield
    except Exception as error:
        if type(error) is Exception:
            raise ConnectionError("the channel was closed") from error
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and not task.cancelling():
            raise ConnectionError("the channel was closed") from error
        raise


async def is_gone(channel: AbstractChannel, queue: str, timeout_s: float) -> bool:
    """Return whether the broker has no such queue; False if it does not answer in time.

    Publishes a mandatory message of one byte with TTL 0. The broker returns it if the queue is gone; otherwise the
    queue's consumer ignores it, or it expires. A passive declaration would close the channel, and waits for a minute
    while a node of the cluster is frozen. The channel needs publisher confirms. Raises one of CONNECTION_LOST_ERRORS.
    """
    message = aio_pika.Message(PROBE, expiration=0, message_id=queue)
    try:
        async with asyncio.timeout(timeout_s):
            with translate_channel_closed():
                await channel.default_exchange.publish(message, queue, mandatory=True)
    except aiormq.exceptions.PublishError as returned:
        return getattr(returned.frame, "reply_code", None) == NO_ROUTE
    except (TimeoutError, aiormq.exceptions.DeliveryError):
        return False
    return False


class Connection(aio_pika.Connection):
    """An aio-pika connection that only its owner closes; if connecting fails, it closes itself.

    aio-pika's own class also closes itself in `__del__`, wherever garbage is collected, and warns when no loop runs
    there.
    """

    def __del__(self) -> None:
        pass

    tap: DeliveryTap

    async def connect(self, timeout: float | None = None) -> None:
        """Connect, or close and raise."""
        transports = TappedTransports()
        self.kwargs["transport_factory"] = transports
        try:
            await super().connect(timeout)
            self.tap = transports.tap
        except BaseException:
            await self.close()
            raise


async def connect(hosts: BrokerHosts, name: str, heartbeat_s: int) -> Connection:
    """Connect to the next host; the broker lists the connection as `name`. Raises one of CONNECTION_LOST_ERRORS."""
    return await aio_pika.connect(
        hosts.next_url(),
        timeout=hosts.connect_timeout_s,
        heartbeat=heartbeat_s,
        client_properties={"connection_name": name},
        connection_class=Connection,
    )
