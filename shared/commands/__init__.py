"""Requests from gateways to the workers.

Read `command` first: the head of every request, and its reply. `market` and `notifier` declare the requests to each
worker and their replies; those of chat_service are in `chat` (room commands), `chat_queries`, `chat_views` and
`activity` (unread counts). Room commands travel in bodies (`body`) to the owner of a partition, which
gateways learn from `broadcasts`.
"""
