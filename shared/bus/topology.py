"""Exchanges, queues and routing. Pure.

Their number is bounded by the numbers of shards and processes, never by rooms or clients.

Every worker declares the whole topology at each connection, so that workers start in any order. A gateway consumes no
durable queue and declares none, so that its account at the broker needs no right to. The rights of each account are in
deploy/rabbitmq/permissions.json.
"""

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from shared.commands.body import COMMAND_TTL_MS

PARTITIONS = 16
SHARDS = 64

REQUESTS = "realtime.commands"  # service requests, presence reports, ticks for the notifier
DELIVERIES = "realtime.lines"
BEATS = "realtime.beats"
EVENTS = "realtime.events"
DEAD = "realtime.dead"

CHAT_QUERY = "chat.queries"
CHAT_PRESENCE = "chat.presences"
MARKET_QUERY = "market.queries"
NOTIFIER_QUERY = "notifier.queries"

NOTIFIER_EVENTS = "notifier.events"
NOTIFIER_TICKS = "notifier.ticks"
NOTIFIER_ALERTS = "notifier.alerts"  # only a routing key: changes of alerts share the order of the ticks
MARKET_TICKS = "market.ticks"
NOTIFIER_REVOCATIONS = "notifier.verdicts"  # own queue, so that a ban never waits behind other events
CHAT_USERS = "chat.users"

EXCHANGES = ((REQUESTS, "direct"), (DELIVERIES, "direct"), (BEATS, "fanout"), (EVENTS, "topic"))

# Queues of releases before the room log: nothing in them was acknowledged to a client.
OLD_QUEUES = (*(f"chat.{partition}" for partition in range(PARTITIONS)), "chat.query", "chat.presence")
OLD_QUEUES += ("market.query", "notifier.query")
OLD_EXCHANGES = ("realtime.deliveries",)

QUERY_TTL_MS = 5_000  # the broker drops an older query: its caller has given up
DEAD_MAX_BYTES = 512 * 1024 * 1024
TICKS_MAX_BYTES = 128 * 1024 * 1024
PRIVATE_QUEUE_MAX_BYTES = 64 * 1024 * 1024
OWNER_QUEUE_MAX_BYTES = 32 * 1024 * 1024

Arguments = dict[str, str | int | bool]


class QueueSpec(NamedTuple):
    """A durable queue, its arguments, and the (exchange, key) pairs that it is bound to.

    `keeps_existing`: an existing queue of this name is used as it is, with any arguments.
    """

    name: str
    arguments: Arguments
    bindings: tuple[tuple[str, str], ...]
    keeps_existing: bool = False


# The broker's last resort against a message that crashes its consumer every time. A restart of broker or service counts
# as a delivery too, so the limit is far above what faults cause.
_POISON: Arguments = {
    "x-delivery-limit": 100,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD,
}
# Every durable queue is a quorum queue: a classic queue lives on one node of a cluster, and is unavailable while that
# node is down.
_REPLICATED: Arguments = {"x-queue-type": "quorum"}
_QUORUM: Arguments = {**_REPLICATED, **_POISON}
_SINGLE: Arguments = {**_QUORUM, "x-single-active-consumer": True}
# When full, the broker drops the oldest. No dead letter exchange, which would collect them.
_BOUNDED_SINGLE: Arguments = {**_REPLICATED, "x-single-active-consumer": True, "x-max-length-bytes": TICKS_MAX_BYTES}

# The queues of a process end with its connection. They are bounded: gateways detect a lost line of a log or an inbox as
# a gap. The loss of an event for a community, a room or everyone (UNORDERED) is not detected: such an event is only for
# the listeners of that time.
PRIVATE_QUEUE: Arguments = {"x-max-length-bytes": PRIVATE_QUEUE_MAX_BYTES}
OWNER_QUEUE: Arguments = {
    "x-max-length-bytes": OWNER_QUEUE_MAX_BYTES,
    "x-overflow": "reject-publish",
    "x-message-ttl": COMMAND_TTL_MS,
}

DEAD_LETTERS = QueueSpec(DEAD, {**_REPLICATED, "x-max-length-bytes": DEAD_MAX_BYTES}, (), keeps_existing=True)


def partition_of(room_id: str) -> int:
    """Return the partition, 0 … 15, whose owner decides the commands of the room."""
    return zlib.crc32(room_id.encode()) % PARTITIONS


def shard_of(channel: str) -> int:
    """Return the shard, 0 … 63, that carries a channel's deliveries."""
    return zlib.crc32(channel.encode()) % SHARDS


def shard_key(shard: int) -> str:
    """Return the routing key of a shard on the exchange of deliveries."""
    return f"d.{shard}"


def queues() -> Iterator[QueueSpec]:
    """Yield every durable queue of the system."""
    for name in (CHAT_QUERY, MARKET_QUERY, NOTIFIER_QUERY):
        yield QueueSpec(name, {**_REPLICATED, "x-message-ttl": QUERY_TTL_MS}, ((REQUESTS, name),))
    presence: Arguments = {**_REPLICATED, "x-message-ttl": QUERY_TTL_MS, "x-single-active-consumer": True}
    yield QueueSpec(CHAT_PRESENCE, presence, ((REQUESTS, CHAT_PRESENCE),))
    yield QueueSpec(NOTIFIER_EVENTS, _SINGLE, ((EVENTS, "#"),))
    yield QueueSpec(NOTIFIER_REVOCATIONS, _SINGLE, ((EVENTS, "user.revoked"), (EVENTS, "user.banned")))
    yield QueueSpec(MARKET_TICKS, _QUORUM, ((EVENTS, "market.tick"),))
    yield QueueSpec(NOTIFIER_TICKS, _BOUNDED_SINGLE, ((REQUESTS, NOTIFIER_TICKS), (REQUESTS, NOTIFIER_ALERTS)))
    yield QueueSpec(CHAT_USERS, _SINGLE, ((EVENTS, "user.updated"),))
    yield DEAD_LETTERS


def queue_label(name: str) -> str:
    """Return a queue's metrics label: its name, or its prefix and `.*` (`rates.*`) if it is named after a process."""
    own, of_process, _ = name.partition(".node_")
    return f"{own}.*" if of_process else name
