"""The metrics of chat_service."""

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.metrics import LATENCY_BUCKETS_S, SIZE_BUCKETS

MESSAGES_STORED = Counter("chat_messages_stored", "Messages stored")
MESSAGES_REPEATED = Counter("chat_messages_repeated", "Duplicate messages: resent or redelivered, and stored before")
COMMANDS = Counter("chat_commands", "Room commands decided", ["op", "outcome"])
COMMIT_COMMANDS = Histogram("chat_commit_commands", "Room commands in one batch of a partition", buckets=SIZE_BUCKETS)
COMMIT_SECONDS = Histogram(
    "chat_commit_seconds",
    "Time to process one batch of a partition, from loading to the answers, retries included",
    buckets=LATENCY_BUCKETS_S,
)
CONFLICTS = Counter(
    "chat_commit_conflicts",
    "Batches of a partition decided again because the log refused an entry or the outcome of the insert was unknown",
)
LEASE_SECONDS = Gauge("chat_lease_seconds", "Remaining time of this process's lease; 0 once it has expired")
REPLICAS = Gauge("chat_replicas", "chat_service processes alive, as seen by this one")
PARTITIONS = Gauge("chat_partitions", "Partitions that this process owns")
PARTITION_OWNED = Gauge(
    "chat_partition_owned", "1 while this process owns the partition; the sum over all is 1", ["partition"]
)
CACHED_ROOMS = Gauge("chat_cached_rooms", "Rooms cached by the partitions of this process")
PRESENCE_CHANGES = Counter("chat_presence_changes", "Changes of users' presence", ["status"])
PRESENCE_REPORTS = Counter("chat_presence_reports", "Presence reports of gateways handled", ["kind"])
GATEWAYS_EXPIRED = Counter("chat_gateways_expired", "Gateways whose lease expired, so that their users went offline")
# "unasked" is an older name, kept for dashboards.
RATES_UNANSWERED = Counter(
    "chat_rates_unasked",
    "Charges and reservations made on this replica because the home of their user did not answer",
)
FOLLOWER_LAG_SECONDS = Gauge(
    "chat_follower_lag_seconds", "How long the oldest log entry waits for a consumer of the logs", ["consumer"]
)
FOLLOWER_SECONDS = Histogram(
    "chat_follower_seconds",
    "Duration of handing a batch of log entries to a consumer",
    ["consumer"],
    buckets=LATENCY_BUCKETS_S,
)
FOLLOWED_ENTRIES = Counter("chat_followed_entries", "Log entries handed to a consumer of the logs", ["consumer"])
SEARCH_SECONDS = Histogram(
    "chat_search_seconds",
    "Duration of a message search, in one room or all joined ones",
    ["scope"],
    buckets=LATENCY_BUCKETS_S,
)
MENTIONS_NOTIFIED = Counter("chat_mentions_notified", "Events published for mentioned users")
MENTIONS_OVER_RATE = Counter("chat_mentions_over_rate", "Mentions not notified: over 60 of a sender in an hour")
