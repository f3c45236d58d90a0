"""Exchanges, queues and routing. Their number is bounded by shard counts, never by rooms or clients. Pure.

Every process declares the whole topology at each connection, so that services start in any order.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

PARTITIONS = 16
SHARDS = 64

COMMANDS = "realtime.commands"
DELIVERIES = "realtime.deliveries"
EVENTS = "realtime.events"
DEAD = "realtime.dead"

CHAT_QUERY = "chat.query"
CHAT_PRESENCE = "chat.presence"
MARKET_QUERY = "market.query"
NOTIFIER_QUERY = "notifier.query"

NOTIFIER_EVENTS = "notifier.events"
NOTIFIER_TICKS = "notifier.ticks"
NOTIFIER_ALERTS = "notifier.alerts"  # only a routing key: changes of alerts share the order of the ticks
MARKET_TICKS = "market.ticks"
NOTIFIER_REVOCATIONS = "notifier.verdicts"  # a queue of their own, so that a ban does not wait behind other events
CHAT_USERS = "chat.users"

COMMAND_EXPIRY_MS = 600_000
DEAD_MAX_BYTES = 512 * 1024 * 1024
TICKS_MAX_BYTES = 128 * 1024 * 1024
GATEWAY_QUEUE_EXPIRES_MS = 60_000
GATEWAY_QUEUE_MAX_BYTES = 64 * 1024 * 1024


class QueueSpec(NamedTuple):
    """A queue, its arguments, and the (exchange, key) pairs that it is bound to."""

    name: str
    arguments: dict[str, str | int | bool]
    bindings: tuple[tuple[str, str], ...]


# The broker's last resort against a message that crashes its consumer every time. A restart of broker or service counts
# as a delivery too, so the limit is far above what faults cause.
_POISON: dict[str, str | int | bool] = {
    "x-delivery-limit": 100,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD,
}
_QUORUM: dict[str, str | int | bool] = {"x-queue-type": "quorum", **_POISON}
_SINGLE: dict[str, str | int | bool] = {**_QUORUM, "x-single-active-consumer": True}
# When full, the broker drops the oldest; without a dead letter exchange, which would collect them.
_BOUNDED_SINGLE: dict[str, str | int | bool] = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": True,
    "x-max-length-bytes": TICKS_MAX_BYTES,
}


def partition_of(room_id: str) -> int:
    """Return the partition, 0 … 15, whose one consumer writes the room."""
    return zlib.crc32(room_id.encode()) % PARTITIONS


def partition_queue(partition: int) -> str:
    """Return the queue and routing key of a partition on `realtime.commands`."""
    return f"chat.{partition}"


def shard_of(channel: str) -> int:
    """Return the shard, 0 … 63, that carries a channel's deliveries."""
    return zlib.crc32(channel.encode()) % SHARDS


def shard_key(shard: int) -> str:
    """Return the routing key of a shard on `realtime.deliveries`."""
    return f"d.{shard}"


def queues() -> Iterator[QueueSpec]:
    """Yield every lasting queue of the system. A gateway's own queue is not here: see `gateway_queue`."""
    for partition in range(PARTITIONS):
        name = partition_queue(partition)
        yield QueueSpec(name, {**_SINGLE, "x-message-ttl": COMMAND_EXPIRY_MS}, ((COMMANDS, name),))
    for name in (CHAT_QUERY, MARKET_QUERY, NOTIFIER_QUERY):
        yield QueueSpec(name, {"x-message-ttl": COMMAND_EXPIRY_MS}, ((COMMANDS, name),))
    presence: dict[str, str | int | bool] = {"x-message-ttl": COMMAND_EXPIRY_MS, "x-single-active-consumer": True}
    yield QueueSpec(CHAT_PRESENCE, presence, ((COMMANDS, CHAT_PRESENCE),))
    yield QueueSpec(NOTIFIER_EVENTS, _SINGLE, ((EVENTS, "#"),))
    yield QueueSpec(NOTIFIER_REVOCATIONS, _SINGLE, ((EVENTS, "user.revoked"), (EVENTS, "user.banned")))
    yield QueueSpec(MARKET_TICKS, _QUORUM, ((EVENTS, "market.tick"),))
    yield QueueSpec(NOTIFIER_TICKS, _BOUNDED_SINGLE, ((COMMANDS, NOTIFIER_TICKS), (COMMANDS, NOTIFIER_ALERTS)))
    yield QueueSpec(CHAT_USERS, _SINGLE, ((EVENTS, "user.updated"),))
    yield QueueSpec(DEAD, {"x-max-length-bytes": DEAD_MAX_BYTES}, ())


def queue_label(name: str) -> str:
    """Return a queue's metrics label: its name, or such as `rates.*` for a queue named after a process."""
    own, of_process, _ = name.partition(".node_")
    return f"{own}.*" if of_process else name


def gateway_queue(node_id: str) -> QueueSpec:
    """Return one gateway process's own queue; it expires 60 s after its process."""
    arguments: dict[str, str | int | bool] = {
        "x-expires": GATEWAY_QUEUE_EXPIRES_MS,
        "x-max-length-bytes": GATEWAY_QUEUE_MAX_BYTES,
    }
    return QueueSpec(f"gateway.{node_id}", arguments, ())
