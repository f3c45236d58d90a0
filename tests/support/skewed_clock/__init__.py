"""A wall clock that is wrong, for child processes: this directory goes on their PYTHONPATH."""
