"""The runtime that every service runs in.

Read `lifecycle` first (start, signals, stop), then `settings` (the environment, typed) and `admin` (probes and
metrics).
"""
