"""Internal events, as clients see them.

Read `audience` (recipients) and `notifications` (content and frames), then `store` (known events) and `commit` (the
commit of a batch of events, for both consumers).
"""
