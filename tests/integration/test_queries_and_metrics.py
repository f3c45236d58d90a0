"""Every query of rules and dashboard uses metrics and labels that the running system exports."""

import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from deploy.tools.metrics_page import MODULES
from tests.support import queries
from tests.support.balancer import HAPROXY, Balancer, needs_haproxy
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem

BY_PROMETHEUS = {"job", "instance", "namespace", "pod"}
OF_PROMETHEUS = {"up": BY_PROMETHEUS, "ALERTS": {"alertname", "alertstate", "severity", *BY_PROMETHEUS}}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def families(url: str) -> Iterator[Metric]:
    with urllib.request.urlopen(url, timeout=5.0) as response:
        yield from text_string_to_metric_families(response.read().decode())


def declared_labels() -> dict[str, set[str]]:
    """Return the labels of our own metrics: a process shows them only after something happened."""
    metrics = [value for module in MODULES.values() for value in vars(module).values()]
    return {metric._name: set(metric._labelnames) for metric in metrics if isinstance(metric, MetricWrapperBase)}


def labels_by_series(found: list[Metric]) -> dict[str, set[str]]:
    """Return the possible series, and their possible labels."""
    declared = declared_labels()
    known: dict[str, set[str]] = defaultdict(set)
    for family in found:
        for suffix in SUFFIXES.get(family.type, ("",)):
            series = known[family.name + suffix]
            series |= BY_PROMETHEUS | declared.get(family.name, set())
            series |= {"le"} if suffix == "_bucket" else set()
        for sample in family.samples:
            known[sample.name] |= set(sample.labels)
    return known


@pytest.fixture(scope="module")
def exported(infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the metrics that the services, each a separate process, and HAProxy export."""
    directory: Path = tmp_path_factory.mktemp("metrics")
    servers = {"AMQP_URL": infrastructure.amqp_url, "MONGODB_URI": infrastructure.mongodb_uri, "GATEWAYS": "1"}
    found: list[Metric] = []
    with LocalSystem(directory, {**servers, "MONGODB_DATABASE": "metrics"}) as system:
        for name, url in system.entries().items():
            if name.endswith("_ADMIN_URL"):
                found += families(f"{url}/metrics")
    if HAPROXY is not None:
        with Balancer(directory) as balancer:
            found += families(balancer.metrics_url)
    return labels_by_series(found) | OF_PROMETHEUS | {name: {"queue", *BY_PROMETHEUS} for name in queries.records()}


@needs_haproxy
def test_every_query_uses_exported_metrics(exported: dict[str, set[str]]) -> None:
    asked = [*queries.rule_queries(), *queries.dashboard_queries(), *queries.adapter_queries()]
    unknown = [
        (query, selection)
        for query in asked
        for selection in query.selections
        if selection.metric not in exported or not selection.labels <= exported[selection.metric]
    ]
    assert not unknown
    assert len(asked) > 100


def test_query_of_unknown_metric_is_detected(exported: dict[str, set[str]]) -> None:
    (selection,) = queries.selections('sum by (userId) (rate(gateway_connections{job="gateway"}[1m]))')
    assert selection == queries.Selection("gateway_connections", frozenset({"userId", "job"}))
    assert not selection.labels <= exported["gateway_connections"]
    assert "gateway_sockets" not in exported
