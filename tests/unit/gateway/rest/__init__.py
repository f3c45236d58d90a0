"""REST operations."""
