"""Each user's inbox.

Read `sequencing` (which entry gets which seq), `inbox` (the one writer) and `store`; `queries` answers gateways and
REST, `expiry` removes old entries.
"""
