"""Shared foundations of the tests: real servers, started on demand, and clients of the published protocol."""
