"""The scenarios of `python -m tests.bench`: each starts what it needs, loads it and returns its outcome."""
