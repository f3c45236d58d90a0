"""The scenarios of `python -m tests.bench`: each starts what it needs, applies load and returns its result."""
