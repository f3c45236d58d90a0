"""The frame of every process.

Read `lifecycle` first (start, signals, stop), then `settings` (the environment, typed) and `admin` (probes and
metrics).
"""
