"""The log follower: hands every entry of every room to consumers, after the commit, at least once and in rev order.

- `backlog`: the entries that were not offered to consumers yet, by room (pure);
- `consumer`: the interface of a consumer;
- `consumer_queue`: the entries that wait for one consumer (pure); `consumer_feed`: hands them over, at its own pace;
- `position_store`: stores the last rev of each room that was handed over to each consumer;
- `log_follower`: the loop that offers entries, saves positions, and recovers what a killed owner left.
"""
