"""A protocol fuzzer against a running gateway: `make fuzz MINUTES=10`.

Reading order: `run`, `actors` (concurrent fuzzers), `material` (inputs), `wire` (malformed bytes),
`checks` (the requirements on every answer).
"""
