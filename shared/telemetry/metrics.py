"""The metrics that every service has. A service's own stand in its `metrics.py`; docs/metrics.md is made of them.

Labels have closed sets of values: never a user, a room, a message, a process. What takes its label at a hot place keeps
the child of `labels`, or counts in plain integers that are brought here once a second.
"""

from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody asks for

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
AGE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

BUILD = Info("build", "In its labels: `service`, `version`, `python`")
READY = Gauge("ready", "1 if the last probe of /readyz found nothing wrong with this check", ["check"])
LOG_LINES = Counter("log_lines", "Log lines written", ["level"])

BUS_CONNECTED = Gauge("bus_connected", "1 while connected to the broker")
BUS_RECONNECTS = Counter("bus_reconnects", "Connections to the broker made after the first")
BUS_BODIES_SENT = Counter("bus_bodies_sent", "AMQP messages sent", ["exchange"])
BUS_LINES_SENT = Counter("bus_lines_sent", "Lines sent in AMQP messages", ["exchange"])
BUS_SEND_FAILURES = Counter("bus_send_failures", "AMQP messages that the broker did not confirm", ["exchange"])
BUS_GATHERED_BYTES = Gauge("bus_gathered_bytes", "Lines gathered that no AMQP message carries yet; bounded by 64 MB")
BUS_CONFIRM_SECONDS = Histogram(
    "bus_confirm_seconds", "From sending an AMQP message to its confirm", buckets=LATENCY_BUCKETS_S
)
BUS_LINES_TAKEN = Counter("bus_lines_taken", "Lines taken from a queue", ["queue"])
BUS_BATCH_LINES = Histogram("bus_batch_lines", "Lines that a consumer took at once", ["queue"], buckets=SIZE_BUCKETS)
BUS_BATCH_SECONDS = Histogram(
    "bus_batch_seconds", "Time that a consumer spent on a batch", ["queue"], buckets=LATENCY_BUCKETS_S
)
BUS_WAIT_SECONDS = Histogram(
    "bus_wait_seconds",
    "From the making of a command to the moment it is taken in hand, by the clocks of two hosts",
    ["queue"],
    buckets=AGE_BUCKETS_S,
)
BUS_QUEUE_DEPTH = Gauge(
    "bus_queue_depth", "AMQP messages that wait at the broker for this consumer; asked every 5 s", ["queue"]
)
BUS_BACKLOG_LINES = Gauge("bus_backlog_lines", "Lines that have come to this consumer and wait in it", ["queue"])
BUS_OLDEST_SECONDS = Gauge(
    "bus_oldest_seconds", "Age of the oldest line that has come to this consumer and is not done; 0 if none", ["queue"]
)
BUS_RETRIES = Counter("bus_retries", "Batches tried again", ["queue", "reason"])
BUS_DEAD_LETTERS = Counter("bus_dead_letters", "Lines sent to realtime.dead", ["queue"])

REQUEST_SECONDS = Histogram(
    "request_seconds",
    "From a command to its reply, as its caller sees it",
    ["op", "outcome"],
    buckets=LATENCY_BUCKETS_S,
)
COMMAND_SECONDS = Histogram("command_seconds", "Time to answer a query", ["op", "outcome"], buckets=LATENCY_BUCKETS_S)

MONGO_SECONDS = Histogram(
    "mongo_seconds",
    "Time that the database took for a command, as the driver sees it",
    ["collection", "command"],
    buckets=LATENCY_BUCKETS_S,
)
MONGO_FAILURES = Counter("mongo_failures", "Commands to the database that failed", ["collection", "command"])

EVENT_LOOP_LAG_SECONDS = Histogram(
    "event_loop_lag_seconds", "How late the event loop runs a timer; twice a second", buckets=LATENCY_BUCKETS_S
)
EVENT_LOOP_LAG_MAX_SECONDS = Gauge("event_loop_lag_max_seconds", "The greatest lag of the last minute")
EVENT_LOOP_TASKS = Gauge("event_loop_tasks", "Tasks of the event loop that are not done")
