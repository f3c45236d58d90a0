"""Provisions and runs the whole system on one machine."""
