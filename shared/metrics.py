"""The metrics that every service has. A service's own stand in its `metrics.py`. No user or room ids in labels."""

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

BUS_CONNECTED = Gauge("bus_connected", "1 while connected to the broker")
BUS_RECONNECTS = Counter("bus_reconnects", "Connections to the broker made after the first")
BUS_BODIES_SENT = Counter("bus_bodies_sent", "AMQP messages sent", ["exchange"])
BUS_LINES_SENT = Counter("bus_lines_sent", "Lines sent in AMQP messages", ["exchange"])
BUS_SEND_FAILURES = Counter("bus_send_failures", "AMQP messages that the broker did not confirm", ["exchange"])
BUS_CONFIRM_SECONDS = Histogram(
    "bus_confirm_seconds", "From sending an AMQP message to its confirm", buckets=LATENCY_BUCKETS_S
)
BUS_LINES_TAKEN = Counter("bus_lines_taken", "Lines taken from a queue", ["queue"])
BUS_BATCH_LINES = Histogram("bus_batch_lines", "Lines that a consumer took at once", ["queue"], buckets=SIZE_BUCKETS)
BUS_BATCH_SECONDS = Histogram(
    "bus_batch_seconds", "Time that a consumer spent on a batch", ["queue"], buckets=LATENCY_BUCKETS_S
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
EVENT_LOOP_LAG_SECONDS = Histogram(
    "event_loop_lag_seconds", "How late the event loop runs a timer", buckets=LATENCY_BUCKETS_S
)
