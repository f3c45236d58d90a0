"""Maintenance tools.

`lock` (pinned versions), `renew_images` (pinned images), `metrics_page` (docs/metrics.md), `audit` (known
vulnerabilities), `broker_definitions` (users and rights at the broker), `first_start` (secrets of a Compose
installation), `k8s_manifests` (manifests from the alerts and the rights at the broker).
"""
