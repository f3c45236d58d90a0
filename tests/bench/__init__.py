"""Load generators: `python -m tests.bench` measures the whole system over its real wire, and its peers beside it."""
