"""Observability of a process.

`logs` with `log_throttle`, `metrics`, `tracing`, and the request id that joins them (`correlation`).
"""
