"""schemathesis against a running gateway: its settings and hooks, and the test that runs it."""
