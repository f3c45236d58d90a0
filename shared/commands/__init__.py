"""Requests of gateways to the workers, over `realtime.commands`.

Read `command` first: the head of every command, and its reply. `chat`, `market` and `notifier` declare the commands of
each worker and their replies.
"""
