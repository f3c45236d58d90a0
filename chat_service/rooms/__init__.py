"""The functional core: rooms, and the changes that commands make. Pure.

Read in this order:

- `room`, `message`, `changes`, `log`: the records, changes of messages, and the log of a room;
- `decision`, `requirements`: one command being decided, and the data that it needs;
- `message_decisions`, `change_decisions`, `room_decisions`, `member_decisions`: the rules by subject; `decisions`: the
  decision of a batch;
- `mention_marks`: mentions by message;
- `entry_deliveries`, `change_frames`, `membership_deliveries`, `heads`: the deliveries of an entry;
- `typing_marks`: the users who are typing.
"""
