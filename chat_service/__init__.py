"""Rooms, messages, members and presence: the one writer of each room, and its readers.

Read in this order:

- `rooms`, `messages`, `log`: the records, and the log of a room;
- `decisions` (the functional core), with `decision`, `requirements`, `message_decisions` and `room_decisions`;
- `partition`: carries decisions out; it loads through `room_cache` and `group_read`, commits through `group_commit`;
- `entry_lines`, `heads`: what gateways receive;
- `write_behind`, `record_writer`, `repair`: records that follow the log later;
- `ownership`, `rendezvous`, `owner`: which replica owns which partition; `body_dedup`, `command_age`: repeated and late
  commands;
- `profiles`, `presence`, `typing_marks`, `rate_limit`, `rate_window`: people;
- `queries`: reads by any replica; `purge`, `migration`: removal of deleted rooms, and the step from release 0.2;
- `log_store`, `store`, `member_store`, `owner_store`, `presence_store`, `profile_store`: all database queries, with
  `documents`; `settings`, `metrics`.
"""
