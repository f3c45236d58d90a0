"""The functional core: what a room is, and what a command changes. Pure.

Read in this order:

- `room`, `message`, `log`: the records, and the log of a room;
- `decision`, `requirements`: one command being decided, and what it needs loaded;
- `message_decisions`, `room_decisions`, `decisions`: the rules, and the decision of a batch;
- `entry_lines`, `heads`: what gateways receive of an entry;
- `typing_marks`: who is typing.
"""
