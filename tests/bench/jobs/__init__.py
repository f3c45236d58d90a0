"""The jobs of the load generator's processes."""
