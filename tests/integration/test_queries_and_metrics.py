"""Every query of rules, dashboard and autoscalers uses metrics and labels that the running system exports."""

import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.broker import BrokerNode
from deploy.tools.metrics_page import MODULES
from tests.support import queries
from tests.support.balancer import HAPROXY, Balancer, needs_haproxy
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem
from tests.support.server_process import ServerProcess
from tests.support.services import free_port

BROKER_START_TIMEOUT_S = 60.0
BROKER_STOP_TIMEOUT_S = 20.0
BY_PROMETHEUS = {"job", "instance", "namespace", "pod"}
OF_PROMETHEUS = {"up": BY_PROMETHEUS, "ALERTS": {"alertname", "alertstate", "severity", *BY_PROMETHEUS}}
# Of components that are not run here, by their documentation: MongoDB's operator, the kubelet, RabbitMQ after 3.10.
OF_CLUSTER = {
    "rabbitmq_unreachable_cluster_peers_count": BY_PROMETHEUS,
    "mongodb_members_health": BY_PROMETHEUS,
    "kubelet_volume_stats_available_bytes": {"persistentvolumeclaim", *BY_PROMETHEUS},
    "kubelet_volume_stats_capacity_bytes": {"persistentvolumeclaim", *BY_PROMETHEUS},
}
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


def broker_families(directory: Path) -> list[Metric]:
    """Return the metrics of a broker node with the plugin that RabbitMQ's images and its operator enable."""
    directory = directory / "broker"
    node = BrokerNode(directory, free_port(), free_port(), free_port())
    node.prepare()
    metrics_port = free_port()
    (directory / "enabled_plugins").write_text("[rabbitmq_prometheus].\n")
    with (directory / "rabbitmq.conf").open("a") as file:
        file.write(f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {metrics_port}\n")
    epmd = ServerProcess(node.epmd_command(), directory / "epmd.out")
    server = ServerProcess(node.server_command(), directory / "server.out")
    try:
        epmd.start()
        epmd.wait_until(node.epmd_is_ready, BROKER_START_TIMEOUT_S)
        server.start()
        server.wait_until(node.is_ready, BROKER_START_TIMEOUT_S)
        return [*families(f"http://127.0.0.1:{metrics_port}/metrics")]
    finally:
        server.stop(BROKER_STOP_TIMEOUT_S)
        epmd.stop(BROKER_STOP_TIMEOUT_S)


@pytest.fixture(scope="module")
def exported(infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the metrics that the services, each a separate process, HAProxy and a broker export."""
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
    found += broker_families(directory)
    return (
        labels_by_series(found)
        | OF_PROMETHEUS
        | OF_CLUSTER
        | {name: {"queue", *BY_PROMETHEUS} for name in queries.records()}
    )


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
