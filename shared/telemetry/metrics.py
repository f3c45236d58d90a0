"""Metrics of every service. Those of a single service are in its `metrics.py`; docs/metrics.md lists all.

Labels have closed sets of values: never a user, a room, a message or a process. Hot code keeps the child of `labels`,
or counts in plain integers that reach the metric once a second.
"""

from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would add a second series to each counter

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
AGE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

BUILD = Info("build", "Version of the process, in the labels `service`, `version`, `revision` and `python`")
READY = Gauge("ready", "1 if this check passed in the last probe of /readyz", ["check"])
LOG_LINES = Counter("log_lines", "Log lines, suppressed ones included", ["level"])

CLOCK_SKEW_SECONDS = Gauge(
    "clock_skew_seconds",
    "Time of the database server less that of this host; a gateway or chat_service beyond 2 s is not ready",
)

BUS_CONNECTED = Gauge("bus_connected", "1 while connected to the broker")
BUS_RECONNECTS = Counter("bus_reconnects", "Reconnections to the broker")
BUS_BODIES_SENT = Counter("bus_bodies_sent", "AMQP messages sent", ["exchange"])
BUS_LINES_SENT = Counter("bus_lines_sent", "Lines sent in AMQP messages", ["exchange"])
BUS_SEND_FAILURES = Counter("bus_send_failures", "AMQP messages that the broker did not confirm", ["exchange"])
BUS_GATHERED_BYTES = Gauge("bus_gathered_bytes", "Bytes of lines that wait for an AMQP message; at most 64 MB")
BUS_CONFIRM_SECONDS = Histogram(
    "bus_confirm_seconds", "Time from sending an AMQP message to its confirm", buckets=LATENCY_BUCKETS_S
)
BUS_LINES_TAKEN = Counter("bus_lines_taken", "Lines taken from a queue", ["queue"])
BUS_BATCH_LINES = Histogram("bus_batch_lines", "Lines in one batch of a consumer", ["queue"], buckets=SIZE_BUCKETS)
BUS_BATCH_SECONDS = Histogram(
    "bus_batch_seconds", "Time that a consumer spent on a batch", ["queue"], buckets=LATENCY_BUCKETS_S
)
BUS_WAIT_SECONDS = Histogram(
    "bus_wait_seconds",
    "Time from the creation of a command to its handling; compares two hosts' clocks",
    ["queue"],
    buckets=AGE_BUCKETS_S,
)
BUS_QUEUE_DEPTH = Gauge(
    "bus_queue_depth", "AMQP messages that wait at the broker for this consumer, sampled every 5 s", ["queue"]
)
BUS_BACKLOG_LINES = Gauge("bus_backlog_lines", "Lines that this consumer has received and not begun", ["queue"])
BUS_OLDEST_SECONDS = Gauge(
    "bus_oldest_seconds",
    "Age of the oldest line that this consumer has received and not finished, or 0",
    ["queue"],
)
BUS_RETRIES = Counter("bus_retries", "Retries of batches", ["queue", "reason"])
BUS_DEAD_LETTERS = Counter("bus_dead_letters", "Lines sent to realtime.dead", ["queue"])

REQUEST_SECONDS = Histogram(
    "request_seconds",
    "Time from a command to its reply, as its caller sees it",
    ["op", "outcome"],
    buckets=LATENCY_BUCKETS_S,
)
COMMAND_SECONDS = Histogram(
    "command_seconds",
    "Time to answer a query (an older name; room commands are in chat_commands and chat_commit_seconds)",
    ["op", "outcome"],
    buckets=LATENCY_BUCKETS_S,
)

BYTES_HELD = Gauge("bytes_held", "Bytes of reads in progress, by the budget that bounds them", ["budget"])
BYTES_REFUSED = Counter("bytes_refused", "Reads refused because too many wait for a budget", ["budget", "code"])
BYTES_EVICTED = Counter("bytes_evicted", "Slow readers disconnected because others waited for a budget", ["budget"])

MONGO_SECONDS = Histogram(
    "mongo_seconds",
    "Duration of a database command, as the driver sees it",
    ["collection", "command"],
    buckets=LATENCY_BUCKETS_S,
)
MONGO_FAILURES = Counter("mongo_failures", "Failed database commands", ["collection", "command"])

EVENT_LOOP_LAG_SECONDS = Histogram(
    "event_loop_lag_seconds", "Delay of a timer of the event loop, sampled twice a second", buckets=LATENCY_BUCKETS_S
)
EVENT_LOOP_LAG_MAX_SECONDS = Gauge("event_loop_lag_max_seconds", "Greatest delay of a timer in the last minute")
EVENT_LOOP_TASKS = Gauge("event_loop_tasks", "Unfinished tasks of the event loop")
