"""Programs that run the system as operators do, and show what then happens to clients and to the figures."""
