"""The log follower: hands every entry of every room to consumers, asynchronously, at least once and in rev order.

- `backlog`: the waiting entries, by room (pure);
- `consumer`: the interface of a consumer;
- `position_store`: the position of each room, which survives the process;
- `log_follower`: the loop that hands over entries, saves positions, and recovers the rooms of a killed owner.
"""
