"""The metrics of notifier."""

from prometheus_client import Counter, Histogram

from shared.metrics import LATENCY_BUCKETS_S

EVENTS = Counter("notifier_events", "Events attended to", ["outcome"])  # delivered, repeated, refused, elsewhere
ENTRIES_STORED = Counter("notifier_entries_stored", "Notices stored in inboxes")
DELIVERIES = Counter("notifier_deliveries", "Deliveries sent and confirmed")
COMMIT_SECONDS = Histogram("notifier_commit_seconds", "Duration of a group commit", buckets=LATENCY_BUCKETS_S)
CONFLICTS = Counter("notifier_commit_conflicts", "Group commits begun again because the disk held something else")
