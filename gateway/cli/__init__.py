"""`realtime`, the command line for people and operators: a client to the gateways, a service on the bus."""
