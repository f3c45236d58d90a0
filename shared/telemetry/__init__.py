"""Observability of a process.

`logs`, `metrics`, `tracing` (`traceparent`: contexts from outside), and the request id that joins them (`correlation`).
`redaction` keeps secrets and users' texts out of the logs, `log_throttle` repeated warnings.
"""
