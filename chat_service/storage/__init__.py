"""Rooms in MongoDB: the log, which is the truth, and the records that follow it.

- `log_store`, `room_store`, `member_store`, `message_store`: every query on them, with `documents`,
  `message_documents` and `change_writes`;
- `group_commit`, `group_read`: one insert, one read for all partitions of the process;
- `recent_read`: reads whose results are reused for a second;
- `write_behind` (pure), `record_writer`: changes of records by plain messages, written seconds later;
- `repair`: the records that a killed owner left outdated;
- `purge`, `migration`, `search_words`: removal of deleted rooms, the migration from release 0.2, and new search words.
"""
