"""`realtime`, the command line for operators and developers: a client of the gateways and of the bus.

Reading order: `arguments` (commands and options), `settings` (where the system is), `__main__` (dispatch), then `rest`,
`bus` and `tail` (REST calls, AMQP, live events), `doctor` (health of an installation) and `show` (output).
"""
