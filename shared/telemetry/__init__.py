"""Observability of a process: `logs`, `metrics`, `tracing`, and the request id that joins them (`correlation`)."""
