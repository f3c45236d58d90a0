"""Maintenance tools: `lock` (pinned versions), `metrics_page` (docs/metrics.md), `audit` (known vulnerabilities)."""
