"""REST under `/v1`: one module for each group of calls."""
