"""The code that all services share: the contract (pure modules) and the shells around broker, database and process.

Read in this order: `errors`, then `protocol` (frames between clients and gateways), `commands` (requests between
gateways and workers), `bus` (the broker), `mongo`, `schema_store`, `generation_store` and `database_clock` (the
database), `process` (start, settings, probes) and `telemetry` (logs, metrics, traces). `byte_budget` bounds the bytes
of reads under way, `rate_window` what a user may do. `ids`, `times`, `waiting`, `encoding`, `tokens`, `backoff` and
`version` are small tools.
"""
