"""Demonstrations: run the system as operators do, and show the effect on clients and metrics."""
