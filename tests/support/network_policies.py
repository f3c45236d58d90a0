"""Evaluate NetworkPolicies as a network plugin does: which connections between pods are allowed. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

Labels = Mapping[str, str]
Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod, or with `namespace=""` a host outside of the cluster. `ports` names its ports as a container does."""

    name: str
    namespace: str
    address: str
    labels: Labels = field(default_factory=dict)
    namespace_labels: Labels = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


def is_allowed(policies: Iterable[Resource], source: Endpoint, destination: Endpoint, protocol: str, port: int) -> bool:
    """Return whether the source's egress and the destination's ingress both admit the connection."""
    listed = list(policies)
    return _admits(listed, "Egress", source, destination, destination, protocol, port) and _admits(
        listed, "Ingress", destination, source, destination, protocol, port
    )


def _admits(
    policies: list[Resource],
    direction: str,
    subject: Endpoint,
    peer: Endpoint,
    destination: Endpoint,
    protocol: str,
    port: int,
) -> bool:
    """Return whether no policy isolates the subject in this direction, or a rule of one admits the connection."""
    isolating = [
        policy["spec"]
        for policy in policies
        if subject.namespace == policy["metadata"]["namespace"]
        and direction in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], subject.labels)
    ]
    peers = "from" if direction == "Ingress" else "to"
    rules = [rule for spec in isolating for rule in spec.get(direction.lower(), ())]
    return not isolating or any(
        _matches_peer(rule.get(peers), subject, peer) and _matches_port(rule.get("ports"), destination, protocol, port)
        for rule in rules
    )


def selects(selector: Resource, labels: Labels) -> bool:
    """Return whether a label selector selects these labels. Raises ValueError for operators other than In."""
    expressions = selector.get("matchExpressions", ())
    if any(expression["operator"] != "In" for expression in expressions):
        raise ValueError(f"unsupported selector: {selector}")
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def _matches_peer(peers: list[Resource] | None, subject: Endpoint, peer: Endpoint) -> bool:
    return peers is None or any(_is_peer(one, subject, peer) for one in peers)


def _is_peer(described: Resource, subject: Endpoint, peer: Endpoint) -> bool:
    if "ipBlock" in described:
        block = described["ipBlock"]
        address = ip_address(peer.address)
        excluded = any(address in ip_network(one) for one in block.get("except", ()))
        return address in ip_network(block["cidr"]) and not excluded
    if not peer.namespace:
        return False
    if "namespaceSelector" in described:
        in_namespace = selects(described["namespaceSelector"], peer.namespace_labels)
    else:
        in_namespace = peer.namespace == subject.namespace
    return in_namespace and selects(described.get("podSelector", {}), peer.labels)


def _matches_port(ports: list[Resource] | None, destination: Endpoint, protocol: str, port: int) -> bool:
    return ports is None or any(
        one.get("protocol", "TCP") == protocol and _number(one["port"], destination) == port for one in ports
    )


def _number(port: int | str, destination: Endpoint) -> int | None:
    return destination.ports.get(port) if isinstance(port, str) else port
