"""The scenarios of `python -m tests.load`: each starts what it needs, loads it and returns its outcome."""
