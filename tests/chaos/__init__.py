"""Fault injection into a running system, with a verdict over every item.

Reading order: `plan` (which faults), `system` and `database` (the system under test), `client` and `traffic` (the
load), `victim` and `access` (users who are removed or banned), `faults` (injection), `ledger` (record and verdict),
`settle` (the end of a run), `run`, `report`. `drain` and `soak` are separate scenarios; `trend` detects growth.
"""
