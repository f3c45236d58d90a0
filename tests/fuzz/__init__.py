"""A protocol fuzzer against a running gateway: `make fuzz MINUTES=10`.

Reading order: `run`, `actors` (concurrent fuzzers), `material` (inputs), `wire` (malformed bytes), `verdicts` (checks).
"""
