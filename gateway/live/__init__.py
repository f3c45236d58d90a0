"""The WebSocket endpoint: one connection's protocol, and what its frames ask for.

Read in this order:

- `session`: the protocol of one connection as a pure state machine (with a diagram);
- `in_flight`, `send_queue`, `socket`, `connections`: bounded requests, a slow socket's queue, one socket, all of them;
- `endpoint`: the upgrade and the read loop; it calls `authentication` and `requests`;
- `subscriptions`: subscribe and unsubscribe;
- `control`: deliveries for the gateway itself, such as evictions and revocations;
- `connection_counts`, `connection_limit`: a user's connections over all gateways;
- `presence`: which users are connected here, reported to chat_service;
- `drain`: closing all sockets without a stampede.
"""
