"""The network policies of both overlays, evaluated for every pair of pods: the allowed connections, and no others."""

import functools

import pytest

from tests.support import manifests
from tests.support.manifests import OVERLAYS
from tests.support.network_policies import Endpoint, is_allowed

NAMESPACES = {"dev": "realtime-dev", "prod": "realtime"}
SERVICES = ("gateway", "chat-service", "market-feed", "notifier")
AMQP = {"dev": 5672, "prod": 5671}
BROKER_PORTS = {"epmd": 4369, "amqp": 5672, "amqps": 5671, "management": 15671, "prometheus": 15692, "nodes": 25672}

# `source: destination/port …`. What is not listed is forbidden. No policy can name the address of the cluster's API, so
# broker and database reach its ports (443, 6443) anywhere.
ALLOWED = """
ingress:      gateway/8080
prometheus:   gateway/9100 chat-service/9100 market-feed/9100 notifier/9100 broker/15692 database/9216
collector:    gateway/9100 chat-service/9100 market-feed/9100 notifier/9100 broker/15692 database/9216
operator:     broker/15671
publisher:    broker/AMQP
gateway:      broker/AMQP collector/4318 internet/443
chat-service: broker/AMQP collector/4318 database/27017
market-feed:  broker/AMQP collector/4318 database/27017 internet/443
notifier:     broker/AMQP collector/4318 database/27017
broker:       broker/4369 broker/25672 internet/443 stranger/443 api-server/6443
database:     database/27017 internet/443 stranger/443 api-server/6443
"""
INSIDE = (*SERVICES, "broker", "database", "debug")
RESOLVE = ("name-server/53", "name-server/53/UDP", "node-local-dns/53", "node-local-dns/53/UDP", "openshift-dns/5353")

per_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def endpoints(overlay: str) -> dict[str, Endpoint]:
    """Return every endpoint by name. `debug` is a pod without labels in the namespace of the services."""
    own = NAMESPACES[overlay]
    found = {name: service(overlay, name, index) for index, name in enumerate(SERVICES, 1)}
    listed = [
        Endpoint("broker", own, "10.1.0.10", {"app.kubernetes.io/name": "rabbitmq"}, {}, BROKER_PORTS),
        Endpoint("database", own, "10.1.0.11", {"app": "mongodb-svc"}, {}, {"mongodb": 27017, "prometheus": 9216}),
        Endpoint("debug", own, "10.1.0.12", {}, {}, {"shell": 2222}),
        pod("ingress", "ingress", "10.2.0.1", {"https": 8443}),
        pod("prometheus", "monitoring", "10.2.0.2", {"web": 9090}),
        pod("collector", "monitoring", "10.2.0.3", {"otlp-http": 4318}),
        pod("operator", "rabbitmq-system", "10.2.0.4", {"webhook": 9443}),
        pod("publisher", "identity", "10.2.0.5", {"http": 8080}, {"realtime/publisher": "true"}),
        pod("stranger", "elsewhere", "10.2.0.6", {"http": 8080, "https": 443}),
        pod("name-server", "kube-system", "10.2.0.7", {"dns": 53}),
        pod("openshift-dns", "openshift-dns", "10.2.0.8", {"dns": 5353}),
        Endpoint("node-local-dns", "", "169.254.20.10", ports={"dns": 53}),
        Endpoint("metadata", "", "169.254.169.254", ports={"http": 80}),
        Endpoint("api-server", "", "172.16.0.1", ports={"https": 6443}),
        Endpoint("internet", "", "203.0.113.7", ports={"http": 80, "https": 443}),
    ]
    return found | {one.name: one for one in listed}


def service(overlay: str, name: str, index: int) -> Endpoint:
    """Return a pod of a service, with the labels and ports of its manifest."""
    ports = {port["name"]: port["containerPort"] for port in manifests.container(overlay, name)["ports"]}
    labels = manifests.pods(overlay)[name]["metadata"]["labels"]
    return Endpoint(name, NAMESPACES[overlay], f"10.1.0.{index}", labels, {}, ports)


def pod(
    name: str, namespace: str, address: str, ports: dict[str, int], labels: dict[str, str] | None = None
) -> Endpoint:
    """Return a pod of another namespace, which has the label of every namespace and these."""
    named = {"kubernetes.io/metadata.name": namespace, **(labels or {})}
    return Endpoint(name, namespace, address, {"app": name}, named, ports)


def allowed(overlay: str, without: str = "") -> set[str]:
    """Return `source: destination/port` for every connection that the policies allow, one policy left out."""
    policies = [one for name, one in manifests.of_kind(overlay, "NetworkPolicy").items() if name != without]
    known = endpoints(overlay)
    return {
        f"{source.name}: {destination.name}/{port}{suffix}"
        for source in known.values()
        for destination in known.values()
        if source.namespace == NAMESPACES[overlay] or destination.namespace == NAMESPACES[overlay]
        for port in destination.ports.values()
        for protocol, suffix in (("TCP", ""), ("UDP", "/UDP"))
        if is_allowed(policies, source, destination, protocol, port)
    }


@functools.cache
def expected(overlay: str) -> set[str]:
    """Return the lines of ALLOWED, and name resolution for every pod."""
    found = {f"{source}: {place}" for source in INSIDE for place in RESOLVE} | {
        f"{source}: openshift-dns/5353/UDP" for source in INSIDE
    }
    for line in ALLOWED.strip().splitlines():
        source, _, places = line.partition(":")
        found |= {f"{source}: {place.replace('AMQP', str(AMQP[overlay]))}" for place in places.split()}
    return found


@per_overlay
def test_exactly_the_listed_connections_are_allowed(overlay: str) -> None:
    assert sorted(allowed(overlay)) == sorted(expected(overlay))


@per_overlay
def test_every_policy_is_needed(overlay: str) -> None:
    for name in manifests.of_kind(overlay, "NetworkPolicy"):
        assert allowed(overlay, without=name) != expected(overlay), name


@per_overlay
def test_overlay_names_the_other_namespaces(overlay: str) -> None:
    assert "set-by-cluster.yaml" not in str(manifests.build(overlay))
