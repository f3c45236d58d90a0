"""The frame of every process around its service.

Read `lifecycle` first (start, signals, stop), then `settings` (the environment, typed) and `admin` (probes and
metrics).
"""
