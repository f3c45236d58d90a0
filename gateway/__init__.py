"""The gateway: authenticates clients, checks their frames, forwards commands, and writes deliveries to sockets.

It stores nothing. Read in this order:

- `__main__`: how the parts are put together; `settings`, `metrics`, `backend` (requests to the services);
- `http`: connections, requests and routes; `admission`: who may connect now, and how many at a time;
- `auth`: tokens, keys and revocations;
- `live`: the WebSocket endpoint; `rest`: the REST calls;
- `fanout`: deliveries from the broker to the sockets;
- `documents`: openapi.json and asyncapi.json; `cli`, `client`, `web`: clients of the gateway.
"""
