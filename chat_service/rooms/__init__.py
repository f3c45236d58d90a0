"""The functional core: rooms, and the changes that commands make. Pure.

Read in this order:

- `room`, `message`, `log`: the records, and the log of a room;
- `decision`, `requirements`: one command being decided, and the data that it needs;
- `message_decisions`, `room_decisions`, `member_decisions`, `decisions`: the rules, and the decision of a batch;
- `entry_deliveries`, `heads`: the deliveries of an entry;
- `typing_marks`: who is typing.
"""
