"""Rooms, messages, members and presence: the one writer of each room, and its readers.

Read in this order:

- `rooms`: the functional core: records, log and decisions;
- `storage`: the log and the records in MongoDB;
- `people`: presence and profiles;
- `partitions`: the ownership of rooms by replicas, and the execution of commands;
- `follower`, `search`: the entries of all logs, handed to consumers asynchronously, after the commit; the message
  search that they feed;
- `mentions`: notifications of mentioned users, asynchronously, after the commit;
- `queries`, `message_queries`, `unread`: reads by any replica; `settings`, `metrics`;
- `broker_cleanup`: removal of the queues and exchanges of earlier releases.
"""
