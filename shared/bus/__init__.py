"""The message bus on RabbitMQ.

Read `topology` first (exchanges, queues, shards), then the lines that travel: `delivery` (to gateways) and `events`
(from internal services). `bus` is the connection; it is made of `amqp`, `batching`, `confirms`, `pending_requests` and
`consumer`, where the ack policy stands. Handlers see the bus as a `publisher`; `query_server` answers queries.
"""
