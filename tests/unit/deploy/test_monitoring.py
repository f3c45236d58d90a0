"""Checks of rules, alerts and dashboard that need no running system."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from deploy.local.settings import PROJECT
from tests.support import queries
from tests.support.prometheus import DIRECTORY, PROMTOOL, native_configuration, needs_prometheus
from tests.support.settings_names import SETTINGS

ALERTS = queries.alerts()
RUNBOOK = (PROJECT / "docs" / "operations.md").read_text()
TESTS: list[dict[str, Any]] = yaml.safe_load((DIRECTORY / "rules_test.yml").read_text())["tests"]


def promtool(*arguments: str) -> str:
    """Return the output of promtool; fail if it fails."""
    assert PROMTOOL is not None
    result = subprocess.run([PROMTOOL, *arguments], cwd=DIRECTORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@needs_prometheus
def test_promtool_accepts_configuration_and_rules() -> None:
    promtool("check", "config", "prometheus.yml")
    assert f"{len(queries.rules())} rules found" in promtool("check", "rules", "--lint-fatal", "rules.yml")


@needs_prometheus
def test_alert_unit_tests_pass() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_firing_and_silent_test(name: str) -> None:
    tests = {test["name"] for test in TESTS}
    assert f"{name} fires always" in tests or {f"{name} fires", f"{name} keeps quiet"} <= tests


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_severity_and_runbook(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"page", "ticket", "none"}
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    section = re.search(rf"^### {name}\n(.+?)(?=^#|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/operations.md has no section {name}"
    assert len(section[1].split()) > 8


def test_runbook_lists_exactly_the_alerts() -> None:
    alerts_section = RUNBOOK[RUNBOOK.index("## Alerts") :]
    alerts_section = alerts_section[: alerts_section.find("\n## ", 1)]
    assert re.findall(r"^### (\w+)$", alerts_section, re.MULTILINE) == list(ALERTS)


def test_every_service_is_scraped() -> None:
    nowhere: dict[str, list[str]] = {name: [] for name in (*SETTINGS, "haproxy", "rabbitmq")}
    assert [job["job_name"] for job in native_configuration(nowhere)["scrape_configs"]] == list(nowhere)


def test_dashboard_legends_use_existing_labels() -> None:
    for panel in queries.dashboard()["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "1m")
            grouped = set[str]().union(*(found.labels for found in queries.selections(text)))
            aggregated = re.match(r"(sum|max|min|count|histogram_quantile)\b", text) is not None
            known = grouped if aggregated else grouped | {"job", "instance", "queue", "check"}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= known, (panel["title"], text)
