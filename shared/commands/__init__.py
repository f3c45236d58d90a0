"""Requests from gateways to the workers.

Read `command` first: the head of every request, and its reply. `chat`, `market` and `notifier` declare the requests to
each worker and their replies. Room commands travel in bodies (`body`) to the owner of a partition, which gateways learn
from `broadcasts`.
"""
