"""Programs that break the running system on purpose, and count what it lost: nothing."""
