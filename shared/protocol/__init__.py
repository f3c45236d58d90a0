"""The WebSocket protocol between clients and gateways.

Read `client_frames` (what clients send), `server_frames`, `message_frames`, `activity_frames` and
`event_frames` (what they receive) and `close_codes`; `message_input`, `message_parts` and
`reaction_emoji` describe a message and its reactions;
`validation` holds the field types and the errors that name a field, `wire_struct` the base of every struct on the wire.
"""
