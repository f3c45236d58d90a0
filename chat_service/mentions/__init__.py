"""Notifications of mentioned users, made from the entries of room logs behind the commit.

- `mention_events`: who is to be notified of an entry, and the events for notifier (pure);
- `grants`: at most 60 notified mentions of a sender in an hour (pure); `grant_store`: their collection;
- `mention_notifier`: the consumer of entries, which a follower of the logs calls.
"""
