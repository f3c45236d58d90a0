"""Rooms, messages, members and presence: the one writer of each room, and its readers.

Read in this order:

- `rooms`: the functional core: records, log and decisions;
- `storage`: the log and the records in MongoDB;
- `people`: presence and profiles;
- `partitions`: which replica owns which rooms, and how it carries commands out;
- `follower`, `search`: the entries of all logs, handed on behind the commit; message search, which is fed by it;
- `mentions`: notifications of mentioned users, behind the commit;
- `queries`, `message_queries`, `unread`: reads by any replica; `settings`, `metrics`.
"""
