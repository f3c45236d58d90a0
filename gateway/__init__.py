"""The gateway: authenticates clients, checks their frames, forwards commands, and writes deliveries to sockets.

It stores nothing. Read in this order:

- `__main__`: the composition root; `settings`, `metrics`, `origins`; `background`: tasks that end with a context;
- `http`: connections, requests and routes; `admission`: which connections may open, and how many at a time;
- `auth`: tokens, keys and revocations;
- `live`: the WebSocket endpoint; `rest`: the REST calls;
- `known_symbols`: the symbols that market_feed knows; the others are looked up together;
- `user_rates`: the rates of a user that each gateway counts by itself;
- `backend`: typed requests to the services; `commands`: room commands on their way to the owner of their partition;
- `fanout`: deliveries from the broker to the sockets;
- `documents`: openapi.json and asyncapi.json; `cli`, `client`, `web`: clients of the gateway.
"""
