"""Requests from gateways to the workers.

Read `command` first: the head of every command, and its reply. `chat`, `market` and `notifier` declare the commands of
each worker and their replies. Room commands travel in bodies (`body`) to the owner of a partition, which gateways learn
from `broadcasts`.
"""
