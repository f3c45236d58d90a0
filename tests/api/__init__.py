"""schemathesis against a running gateway: settings, hooks and the test that runs it."""
