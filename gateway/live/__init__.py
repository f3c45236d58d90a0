"""The WebSocket endpoint: the protocol of a connection, and the requests that it carries.

Read in this order:

- `session`: the protocol of one connection as a pure state machine (with a diagram);
- `in_flight`, `send_queue`: the limit on concurrent requests, the send queue of a slow socket;
- `socket`, `connections`, `due_wheel`: one socket, and all sockets of the process;
- `frame_reader`, `websocket`: the frames of one connection, in order, and its end;
- `handshake`, `endpoint`: the upgrade, and the dispatch of frames to `authentication` and `requests`;
- `subscriptions`, `attempts`, `missed_items`: subscribe and unsubscribe; the undoing of an attempt that failed; the
  items that a resuming socket missed;
- `control`: deliveries for the gateway itself, such as evictions and revocations;
- `connection_counts`, `connection_limit`: the limit on a user's connections across all gateways;
- `presence`: the users connected here, reported to chat_service;
- `drain`, `restoration`: a paced close of all sockets; their close after a restore of the database.
"""
