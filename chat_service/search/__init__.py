"""Message search: an index updated after the commit, and its queries. Read `words`, `tree`, `index_store` first.

- `words`: the words of a message and of a query (pure);
- `tree`: the index of a room as a tree of pages, and the order in which a query reads them (pure);
- `index_store`: every query on the pages; `builder`: builds pages from messages and other pages;
- `indexer`: the consumer of log entries that keeps the index up to date; `backfill`: older messages, once;
- `page_reader`, `room_search`, `global_search`, `message_search`: queries in one room, and in all rooms of a user.
"""
