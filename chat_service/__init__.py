"""Rooms, messages, members and presence: the one writer of each room, and its readers.

Read in this order:

- `rooms`: the functional core: records, log and decisions;
- `storage`: the log and the records in MongoDB;
- `people`: presence and profiles;
- `partitions`: which replica owns which rooms, and how it carries commands out;
- `follower`, `search`: the entries of all logs, handed on behind the commit; message search, which is fed by it;
- `queries`, `message_queries`: reads by any replica; `settings`, `metrics`.
"""
