"""The message bus on RabbitMQ.

Read in this order:

- `topology`: exchanges, queues, shards;
- `delivery`, `events`: the lines for gateways, and the events of internal services;
- `hosts`, `amqp`, `publish_frame`, `delivery_tap`, `broker_channels`, `broker_objects`, `broker_connection`: one
  connection to RabbitMQ, and its hot path in both directions;
- `private_queue`, `echo`, `kept_connection`: the connection of a process, which is replaced when it is lost;
- `batching`, `confirms`, `confirm_channel`, `line_sender`: sending with confirms;
- `delivery_bodies`: sending without confirms;
- `pending_reply`, `pending_requests`, `query_server`: requests and their replies;
- `consumer`: a consumer with the ack policy;
- `queue_admin`: administrative operations on queues and dead letters;
- `bus`: made of all these; handlers see it as a `publisher`;
- `broadcast_queue`: the queue on which a process hears the broadcasts of all others;
- `liveness_queue`: a queue whose disappearance proves that its process is dead.
"""
