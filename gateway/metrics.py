"""The metrics of the gateway."""

from prometheus_client import Counter, Gauge, Histogram

from shared.telemetry.metrics import AGE_BUCKETS_S, LATENCY_BUCKETS_S

CONNECTIONS = Gauge("gateway_connections", "Open WebSocket connections")
CONNECTIONS_MAX = Gauge("gateway_connections_max", "Connections that this gateway takes at most: MAX_CONNECTIONS")
CONNECTIONS_OPENED = Counter("gateway_connections_opened", "Upgrades done")
CONNECTIONS_REFUSED = Counter("gateway_connections_refused", "Upgrades refused", ["reason"])
ARRIVING_MAX = Gauge(
    "gateway_arriving_max",
    "Connections and clients that may be coming in at a time: taken, waiting or served; see admission.Pace",
)
USERS = Gauge("gateway_users", "Users with a connection here")
CLOSES = Counter("gateway_closes", "Connections closed, by close code and by who closed", ["code", "by"])
FRAMES_IN = Counter("gateway_frames_in", "Client frames taken, by type", ["type"])
BYTES_IN = Counter("gateway_bytes_in", "Bytes of the text frames of clients")
FRAMES_OUT = Counter(
    "gateway_frames_out", "Frames to clients: of the fan-out, one for each socket; and answers to one", ["way"]
)
BYTES_OUT = Counter("gateway_bytes_out", "Bytes of the frames to clients", ["way"])
ERRORS_OUT = Counter("gateway_errors_out", "Errors answered to clients, by code", ["code"])
AUTH_FAILURES = Counter("gateway_auth_failures", "Tokens refused, by code", ["code"])
JWKS_FETCHES = Counter("gateway_jwks_fetches", "Fetches of the issuer's keys, by outcome", ["outcome"])
SUBSCRIPTIONS = Gauge("gateway_subscriptions", "Subscriptions of all connections")
CHANNELS = Gauge("gateway_channels", "Channels that anybody here listens to")
DELIVERIES_IN = Counter("gateway_deliveries_in", "Delivery lines from the broker, by class", ["kind"])
BODIES_IN = Counter("gateway_bodies_in", "AMQP messages that brought delivery lines")
DELIVERY_SECONDS = Histogram(
    "gateway_delivery_seconds",
    "From the sender's frame at its gateway to the last write of the message here, of one message a flush at most",
    buckets=AGE_BUCKETS_S,
)
WRITES = Counter("gateway_writes", "Buffers written to sockets by the fan-out")
SHED = Counter("gateway_shed", "Transient items dropped for slow connections")
CONFLATED = Counter("gateway_conflated", "Prices replaced by newer ones for slow connections")
SLOW = Gauge("gateway_slow_connections", "Connections that do not read fast enough right now")
SLOW_BYTES = Gauge("gateway_slow_bytes", "What waits for slow connections")
SLOW_CLOSES = Counter("gateway_slow_closes", "Connections closed with 4413: over 1 MB of lossless items waited")
GAPS = Counter("gateway_gaps", "Gaps in a channel that were filled from history")
GAPS_LOST = Counter("gateway_gaps_lost", "Gaps of which history knew nothing any more: they were skipped")
SHARDS_BOUND = Gauge("gateway_shards_bound", "Shards that this gateway listens to")
DRAINING = Gauge("gateway_draining", "1 since this gateway has been told to stop")
DRAINED = Counter("gateway_drained", "Connections told to go elsewhere because this gateway stops")
PRESENCE_LEASE_SECONDS = Gauge(
    "gateway_presence_lease_seconds", "How long the presence lease still holds; 0 when it has run out"
)
REST_SECONDS = Histogram(
    "gateway_rest_seconds", "Time to answer a REST call", ["route", "status"], buckets=LATENCY_BUCKETS_S
)
