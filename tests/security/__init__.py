"""What hostile clients do, each thing a test; and a storm of friendly ones."""
