"""An internal event as clients see it.

Read `audience` (its recipients) and `notifications` (its content and frames), then `store` (the events that are known)
and `commit` (the group commit that both consumers of events share).
"""
