"""The metrics of market_feed."""

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.metrics import AGE_BUCKETS_S, LATENCY_BUCKETS_S

TICKS = Counter("market_ticks", "Ticks applied", ["source"])
TICK_AGE_SECONDS = Histogram(
    "market_tick_age_seconds",
    "Age of the oldest tick in each batch when it is applied",
    ["source"],
    buckets=AGE_BUCKETS_S,
)
TICKS_LATE = Counter(
    "market_ticks_late", "Late ticks: older than the price of their symbol, so they correct only earlier values"
)
TICKS_BAD = Counter("market_ticks_bad", "Ticks refused", ["source"])
TICKS_SKIPPED = Counter("market_ticks_skipped", "Valid ticks skipped while the database was unavailable", ["source"])
TICKS_UNANNOUNCED = Counter(
    "market_ticks_unannounced",
    "Lines for notifier, of up to 1,000 ticks each, that were dropped because the broker was unavailable for too long",
)
EVENTS_REPEATED = Counter("market_events_repeated", "Duplicate tick events")
EVENTS_LOOKED_UP = Counter("market_events_looked_up", "Tick events looked up in the index of processed events")
SYMBOLS = Gauge("market_symbols", "Known symbols")
SYMBOLS_STALE = Gauge("market_symbols_stale", "Symbols whose source has fallen silent")
LEASE_SECONDS = Gauge("market_lease_seconds", "Remaining time of this process's lease; 0 without one")
OWNER = Gauge("market_owner", "1 while this process owns the symbols, 0 while it stands by")
PENDING_TICKS = Gauge("market_pending_ticks", "Ticks not yet in the journal")
BACKLOG = Gauge("market_backlog", "Unwritten candles, and ticks that wait for candles to be read back")
COMMIT_SECONDS = Histogram("market_commit_seconds", "Duration of a journal write", buckets=LATENCY_BUCKETS_S)
# cut: an older name of a checkpoint, kept for dashboards
CHECKPOINT_SECONDS = Histogram("market_cut_seconds", "Duration of writing candles and state", buckets=LATENCY_BUCKETS_S)
UPSTREAM_CONNECTED = Gauge("market_upstream_connected", "1 while connected to this upstream feed", ["source"])
UPSTREAM_RECONNECTS = Counter("market_upstream_reconnects", "Reconnections to this upstream feed", ["source"])
