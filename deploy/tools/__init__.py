"""Maintenance tools.

`lock` (pinned versions), `metrics_page` (docs/metrics.md), `audit` (known vulnerabilities), `broker_definitions` (users
and rights at the broker), `k8s_manifests` (manifests from the alerts and the rights at the broker).
"""
