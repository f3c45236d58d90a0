"""A protocol fuzzer against a running gateway: `make fuzz MINUTES=10`."""
