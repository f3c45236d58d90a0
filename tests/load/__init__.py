"""Load generators: `python -m tests.load` measures the whole system over its real wire, and its peers beside it."""
