"""The metrics of notifier."""

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.metrics import AGE_BUCKETS_S, LATENCY_BUCKETS_S

EVENTS = Counter("notifier_events", "Events handled", ["outcome"])
EVENT_AGE_SECONDS = Histogram(
    "notifier_event_age_seconds",
    "Time from an event, by its `time`, to its handling; compares two hosts' clocks",
    buckets=AGE_BUCKETS_S,
)
ENTRIES_STORED = Counter("notifier_entries_stored", "Entries stored in inboxes")
DELIVERIES = Counter("notifier_deliveries", "Deliveries confirmed by the broker")
COMMIT_SECONDS = Histogram("notifier_commit_seconds", "Duration of committing events", buckets=LATENCY_BUCKETS_S)
CONFLICTS = Counter("notifier_commit_conflicts", "Commits of event batches repeated after a write conflict")
# standings: an older name of revocations, kept for dashboards
REVOCATIONS_CHANGED = Counter("notifier_standings_changed", "Revocations and bans applied")
ALERTS_OPEN = Gauge("notifier_alerts_open", "Price alerts that this process watches")
ALERTS_FIRED = Counter("notifier_alerts_fired", "Price alerts fired")
ALERT_TICKS = Counter("notifier_alert_ticks", "Ticks compared with alerts")
ENTRIES_EXPIRED = Counter("notifier_entries_expired", "Inbox entries removed after their retention")
