"""Rooms, messages, members and presence: the one writer of each room, and its readers.

Read `rooms` and `messages` (the records), then `decisions` (the functional core) with `decision`, `requirements`,
`message_decisions` and `room_decisions`. `partition` carries decisions out: it loads through `room_cache`, commits
through `group_insert` and `write_behind`, and `repair` puts right what a crash left. `nodes` shares the partitions out
over the replicas (`rendezvous`). Beside them stand `queries`, `presence`, `profiles`, `rate_limit`, `typing_marks` and
`purge`. The `*store` modules hold all database queries; `__main__` composes the service.
"""
