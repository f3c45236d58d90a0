"""Users' inboxes.

Read `sequencing` (the seq of each entry), `inbox` (the one writer) and `store`; `queries` answers gateways and
REST, `expiry` removes old entries.
"""
