"""The metrics of the gateway."""

from prometheus_client import Counter, Gauge, Histogram

from shared.metrics import LATENCY_BUCKETS_S

CONNECTIONS = Gauge("gateway_connections", "Open WebSocket connections")
CONNECTIONS_REFUSED = Counter("gateway_connections_refused", "Upgrades refused", ["reason"])
CLOSES = Counter("gateway_closes", "Connections closed, by close code", ["code"])
FRAMES_IN = Counter("gateway_frames_in", "Client frames taken, by type", ["type"])
ERRORS_OUT = Counter("gateway_errors_out", "Errors answered to clients, by code", ["code"])
AUTH_FAILURES = Counter("gateway_auth_failures", "Tokens refused, by code", ["code"])
SUBSCRIPTIONS = Gauge("gateway_subscriptions", "Subscriptions of all connections")
DELIVERIES_IN = Counter("gateway_deliveries_in", "Delivery lines from the broker, by class", ["kind"])
WRITES = Counter("gateway_writes", "Buffers written to sockets by the fan-out")
SHED = Counter("gateway_shed", "Transient items dropped for slow connections")
CONFLATED = Counter("gateway_conflated", "Prices replaced by newer ones for slow connections")
SLOW = Gauge("gateway_slow_connections", "Connections that do not read fast enough right now")
GAPS = Counter("gateway_gaps", "Gaps in a channel that were filled from history")
SHARDS_BOUND = Gauge("gateway_shards_bound", "Shards that this gateway listens to")
REST_SECONDS = Histogram(
    "gateway_rest_seconds", "Time to answer a REST call", ["route", "status"], buckets=LATENCY_BUCKETS_S
)
