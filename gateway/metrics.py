"""The metrics of the gateway."""

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.metrics import AGE_BUCKETS_S, LATENCY_BUCKETS_S

CONNECTIONS = Gauge("gateway_connections", "Open WebSocket connections")
CONNECTIONS_MAX = Gauge("gateway_connections_max", "Limit of WebSocket connections of this gateway: MAX_CONNECTIONS")
OPEN_CONNECTIONS = Gauge("gateway_open_connections", "Open TCP connections: WebSocket and HTTP")
CONNECTIONS_OPENED = Counter("gateway_connections_opened", "WebSocket upgrades completed")
CONNECTIONS_REFUSED = Counter(
    "gateway_connections_refused", "Connections and WebSocket upgrades refused, by reason", ["reason"]
)
ARRIVING_MAX = Gauge(
    "gateway_arriving_max",
    "Adaptive limit on concurrent connection set-ups",
)
USERS = Gauge("gateway_users", "Users with a connection to this gateway")
CLOSES = Counter("gateway_closes", "Connections closed, by close code and by the side that closed", ["code", "by"])
FRAMES_IN = Counter("gateway_frames_in", "Frames received from clients, by type", ["type"])
BYTES_IN = Counter("gateway_bytes_in", "Bytes of text frames received from clients")
FRAMES_OUT = Counter(
    "gateway_frames_out",
    "Frames sent to clients, by path: fan-out (counted once for each socket), answers, activity",
    ["way"],
)
BYTES_OUT = Counter("gateway_bytes_out", "Bytes of frames sent to clients", ["way"])
ERRORS_OUT = Counter(
    "gateway_errors_out",
    "Error frames that answer requests, by code; without those for auth and those sent with a close",
    ["code"],
)
AUTH_FAILURES = Counter("gateway_auth_failures", "Tokens refused, by code", ["code"])
JWKS_FETCHES = Counter("gateway_jwks_fetches", "Fetches of the issuer's key set, by outcome", ["outcome"])
SUBSCRIPTIONS = Gauge("gateway_subscriptions", "Subscriptions of all connections")
ACTIVITY_SOCKETS = Gauge("gateway_activity_sockets", "Sockets subscribed to activity")
CHANNELS = Gauge("gateway_channels", "Channels with a socket on this gateway")
DELIVERIES_IN = Counter("gateway_deliveries_in", "Delivery lines received from the broker, by kind", ["kind"])
BODIES_IN = Counter("gateway_bodies_in", "AMQP messages with delivery lines received")
DELIVERY_SECONDS = Histogram(
    "gateway_delivery_seconds",
    "Time from the sender's frame at its gateway to the last write of the message here; at most one sample per flush",
    buckets=AGE_BUCKETS_S,
)
WRITES = Counter("gateway_writes", "Buffers written to sockets by the fan-out")
SHED = Counter("gateway_shed", "Transient items dropped for slow connections (load shedding)")
CONFLATED = Counter("gateway_conflated", "Prices replaced by newer ones for slow connections (conflation)")
SLOW = Gauge("gateway_slow_connections", "Connections that do not read fast enough now")
SLOW_BYTES = Gauge("gateway_slow_bytes", "Bytes queued for slow connections")
SLOW_CLOSES = Counter(
    "gateway_slow_closes",
    "Connections closed with 4413: over 1 MB of lossless items and newest prices was queued, except those of a replay",
)
COMMANDS_SHED = Counter("gateway_commands_shed", "Room commands refused because too many wait for their partition")
GAPS = Counter("gateway_gaps", "Gaps in a channel for which history was requested")
GAPS_LOST = Counter("gateway_gaps_lost", "Gaps that could not be filled and were skipped")
RESTORES = Counter("gateway_restores", "Restores of the database after which this gateway closed its sockets")
SHARDS_BOUND = Gauge("gateway_shards_bound", "Delivery shards bound to the queue of this gateway")
DRAINING = Gauge("gateway_draining", "1 while this gateway drains")
DRAINED = Counter("gateway_drained", "Connections closed with server:drain because this gateway stops")
PRESENCE_LEASE_SECONDS = Gauge(
    "gateway_presence_lease_seconds", "Remaining time of the presence lease; 0 when it has expired"
)
REST_SECONDS = Histogram(
    "gateway_rest_seconds", "Time to answer a REST call", ["route", "status"], buckets=LATENCY_BUCKETS_S
)
