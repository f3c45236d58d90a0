"""The WebSocket protocol between clients and gateways.

Read `client_frames` (what clients send), `server_frames` and `event_frames` (what they receive) and `close_codes`;
`validation` holds the field types and the errors that name a field, `wire_struct` the base of every struct on the wire.
"""
