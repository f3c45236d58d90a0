"""Notifications of mentioned users, made from the entries of room logs asynchronously, after the commit.

- `mention_events`: the recipients of an entry's notifications, and the events for notifier (pure);
- `sent_mentions`: at most 60 mention notifications of a sender in an hour (pure); `sent_mention_store`: their store;
- `mention_notifier`: the consumer of log entries, called by the log follower.
"""
