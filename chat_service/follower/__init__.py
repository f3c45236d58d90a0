"""The log follower: hands every entry of every room to consumers, behind the commit, at least once and in rev order.

- `backlog`: the entries that wait, by room (pure);
- `consumer`: what a consumer is given, and owes;
- `position_store`: how far each room was handed over, which survives the process;
- `log_follower`: the loop that hands over, saves positions, and recovers what a killed owner left.
"""
