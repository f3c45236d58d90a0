"""The rules of prometheus-adapter, on a real Prometheus that scrapes real services as the PodMonitor does."""

import json
import math
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import manifests, queries
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem, settings_on
from tests.support.prometheus import Prometheus, needs_prometheus
from tests.support.tokens import mint

pytestmark = needs_prometheus
NAMESPACE = "realtime"
INTERVAL_S = 1
SCRAPED_TIMEOUT_S = 60.0
SERVICES = {
    "gateway_connections": "gateway",
    "chat_commit_seconds_mean": "chat_service",
    "chat_query_lag_seconds": "chat_service",
    "notifier_query_lag_seconds": "notifier",
}


def configuration(admin_urls: dict[str, str]) -> dict[str, Any]:
    """Return a Prometheus configuration with the labels that the operator adds to the targets of a PodMonitor."""
    static = [
        {"targets": [url.removeprefix("http://")], "labels": {"namespace": NAMESPACE, "pod": f"{name}-0"}}
        for name, url in admin_urls.items()
    ]
    interval = f"{INTERVAL_S}s"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [{"job_name": "realtime", "static_configs": static}],
    }


@pytest.fixture(scope="module")
def system(infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSystem]:
    """Yield a running system with one gateway."""
    settings = {**settings_on(infrastructure), "GATEWAYS": "1"}
    with LocalSystem(tmp_path_factory.mktemp("system"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(system: LocalSystem, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Yield a Prometheus that has scraped every service twice."""
    admin_urls = {
        name.removesuffix("_ADMIN_URL").lower(): url
        for name, url in system.entries().items()
        if name.endswith("_ADMIN_URL")
    }
    with Prometheus(tmp_path_factory.mktemp("prometheus"), configuration(admin_urls)) as running:
        wait_until(lambda: len(running.query("sum_over_time(up[1m]) >= 2")) == len(admin_urls))
        yield running


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SCRAPED_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(INTERVAL_S / 4)


def values(prometheus: Prometheus, rule: dict[str, Any], matchers: str) -> dict[str, float]:
    """Return the rule's value by pod."""
    found = prometheus.query(queries.adapter_query(rule, matchers, "pod"))
    return {one["metric"]["pod"]: float(one["value"][1]) for one in found}


def create_room(system: LocalSystem) -> None:
    """Send a room command, which chat_service commits."""
    request = urllib.request.Request(
        f"{system.entries()['GATEWAY_URL']}/v1/chatrooms",
        data=json.dumps({"name": "scaling", "type": "public"}).encode(),
        headers={"Authorization": f"Bearer {mint('user_1')}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SCRAPED_TIMEOUT_S) as answer:
        assert answer.status == 201


def test_rule_gives_each_pod_of_its_deployment_a_value(prometheus: Prometheus) -> None:
    rules = manifests.adapter_rules()
    assert {rule["name"]["as"] for rule in rules} == set(SERVICES)
    for rule in rules:
        discovered = {one["metric"]["pod"] for one in prometheus.query(rule["seriesQuery"])}
        found = values(prometheus, rule, f'namespace="{NAMESPACE}"')
        assert set(found) == discovered
        assert discovered and all(pod.startswith(SERVICES[rule["name"]["as"]]) for pod in discovered)
        assert all(map(math.isfinite, found.values()))


def test_matcher_of_another_pod_gives_no_value(prometheus: Prometheus) -> None:
    for rule in manifests.adapter_rules():
        assert not values(prometheus, rule, 'pod=~"other-.*"')


def test_time_of_commits_is_measured(system: LocalSystem, prometheus: Prometheus) -> None:
    (rule,) = [rule for rule in manifests.adapter_rules() if rule["name"]["as"] == "chat_commit_seconds_mean"]
    create_room(system)
    wait_until(lambda: max(values(prometheus, rule, f'namespace="{NAMESPACE}"').values()) > 0)
