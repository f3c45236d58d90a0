"""Attacks of hostile clients, one per test, and a storm of friendly clients."""
