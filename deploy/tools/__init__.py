"""Maintenance tools.

`lock` (pinned versions), `metrics_page` (docs/metrics.md), `audit` (known vulnerabilities), `broker_definitions` (users
and rights at the broker).
"""
