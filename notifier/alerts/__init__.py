"""Price alerts.

Read `book` (which alerts a tick fires), then `watcher` (the consumer of ticks) and `store`; `queries` serves REST, and
`trimming` bounds the kept alerts.
"""
