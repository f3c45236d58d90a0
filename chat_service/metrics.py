"""The metrics of chat_service."""

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.metrics import LATENCY_BUCKETS_S, SIZE_BUCKETS

MESSAGES_STORED = Counter("chat_messages_stored", "Messages stored")
MESSAGES_REPEATED = Counter("chat_messages_repeated", "Messages that were stored before: resent or redelivered")
COMMANDS = Counter("chat_commands", "Room commands decided", ["op", "outcome"])
COMMIT_COMMANDS = Histogram("chat_commit_commands", "Room commands in one group commit", buckets=SIZE_BUCKETS)
COMMIT_SECONDS = Histogram("chat_commit_seconds", "Duration of a group commit", buckets=LATENCY_BUCKETS_S)
CONFLICTS = Counter("chat_commit_conflicts", "Group commits begun again because the disk held something else")
LEASE_SECONDS = Gauge("chat_lease_seconds", "How long the lease of this process still holds; 0 when it has run out")
REPLICAS = Gauge("chat_replicas", "chat_service processes with a lease, as this one sees it")
PARTITIONS = Gauge("chat_partitions", "Partitions that this process consumes")
PARTITION_OWNED = Gauge(
    "chat_partition_owned", "1 while this process consumes the partition; the sum over all is 1", ["partition"]
)
CACHED_ROOMS = Gauge("chat_cached_rooms", "Rooms held in memory by all partitions of this process")
PRESENCE_CHANGES = Counter("chat_presence_changes", "Users who came online or went offline", ["status"])
PRESENCE_REPORTS = Counter("chat_presence_reports", "Reports of gateways taken", ["kind"])
GATEWAYS_EXPIRED = Counter(
    "chat_gateways_expired", "Gateways whose lease ran out, or who left: their users were taken offline"
)
RATES_UNASKED = Counter("chat_rates_unasked", "Rate limits counted here because their home did not answer in time")
