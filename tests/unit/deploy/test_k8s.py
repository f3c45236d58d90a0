"""The Kubernetes manifests: they build, they are valid, and they fit the services."""

from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from shared.bus.topology import PARTITIONS
from shared.process.settings import load
from tests.support import manifests
from tests.support.manifests import OVERLAYS
from tests.support.settings_names import SETTINGS, names

KUBERNETES = "1.33.0"
FROM_OPERATORS = {"RabbitmqCluster", "MongoDBCommunity", "PodMonitor"}  # their schemas ship with the operators
MADE_OUTSIDE = {"jwt", "mongodb-realtime-password", "realtime-tls"}
MADE_BY_OPERATORS = {"rabbitmq-default-user", "mongodb-realtime-realtime"}
DEPLOYMENTS = {service.replace("_", "-"): service for service in SETTINGS}
SECRETS = {"AMQP_URL": "amqp://broker/", "MONGODB_URI": "mongodb://database/", "JWT_SECRET": "s" * 32}
STOP_MARGIN_S = 5
MIB = 1 << 20
SOCKET_BYTES = 22 * 1024  # docs/performance.md
GATEWAY_BASE_BYTES = 100 * MIB

per_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
per_deployment = pytest.mark.parametrize("name", DEPLOYMENTS)


@per_overlay
def test_every_resource_is_valid(overlay: str) -> None:
    resources = manifests.build(overlay)
    for resource in resources:
        if resource["kind"] not in FROM_OPERATORS:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    assert len({(resource["kind"], resource["metadata"]["name"]) for resource in resources}) == len(resources)


@per_overlay
@per_deployment
def test_variables_are_valid_settings(overlay: str, name: str) -> None:
    service = DEPLOYMENTS[name]
    environment = manifests.environment(overlay, name, SECRETS)
    assert set(environment) <= names(service)
    settings = load(SETTINGS[service], environment)
    ports = {port["name"]: port["containerPort"] for port in manifests.container(overlay, name)["ports"]}
    assert ports.pop("admin") == int(environment["ADMIN_PORT"])
    assert ports == ({"http": int(environment["GATEWAY_PORT"])} if service == "gateway" else {})
    assert manifests.container(overlay, name)["command"] == ["python", "-m", service]
    assert settings.log_format == "json"


@per_overlay
@per_deployment
def test_probes_use_admin_port(overlay: str, name: str) -> None:
    described = manifests.container(overlay, name)
    asked = {kind: described[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in asked.values()} == {"admin"}
    assert [probe["path"] for probe in asked.values()] == ["/healthz", "/healthz", "/readyz"]


@per_overlay
@per_deployment
def test_grace_period_covers_drain(overlay: str, name: str) -> None:
    drain_s = float(manifests.environment(overlay, name, SECRETS)["DRAIN_TIMEOUT_S"])
    hook = manifests.container(overlay, name).get("lifecycle", {}).get("preStop")
    assert (hook is not None) == (name == "gateway")
    wait_s = int(hook["exec"]["command"][1]) if hook is not None else 0
    grace_s = manifests.pods(overlay)[name]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s >= wait_s + drain_s + STOP_MARGIN_S
    update = manifests.of_kind(overlay, "Deployment")[name]["spec"]["strategy"]["rollingUpdate"]
    assert update["maxUnavailable"] == 0


@per_overlay
@per_deployment
def test_pods_are_hardened(overlay: str, name: str) -> None:
    pod = manifests.pods(overlay)[name]["spec"]
    described = manifests.container(overlay, name)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert described["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@per_overlay
def test_images_are_pinned(overlay: str) -> None:
    for name in manifests.pods(overlay):
        image = manifests.container(overlay, name)["image"]
        assert ":" in image and not image.endswith(":latest")


@per_overlay
def test_secrets_exist_or_have_named_source(overlay: str) -> None:
    given = set(manifests.of_kind(overlay, "Secret"))
    given |= MADE_OUTSIDE | MADE_BY_OPERATORS if overlay == "prod" else set()
    for name in DEPLOYMENTS:
        for entry in manifests.container(overlay, name)["env"]:
            assert entry["valueFrom"]["secretKeyRef"]["name"] in given
    assert not set(manifests.of_kind("prod", "Secret")), "secrets in the tree"


def test_autoscalers_fit_services() -> None:
    scalers = manifests.of_kind("prod", "HorizontalPodAutoscaler")
    assert {scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers.values()} == {"gateway", "chat-service"}
    for name, scaler in scalers.items():
        # Otherwise every rollout would reset the number of replicas.
        assert "replicas" not in manifests.of_kind("prod", "Deployment")[name]["spec"]
        assert scaler["spec"]["minReplicas"] >= 2
    assert scalers["chat-service"]["spec"]["maxReplicas"] == PARTITIONS
    wanted = {name: scaler["spec"]["metrics"][0] for name, scaler in scalers.items()}
    sockets = int(wanted["gateway"]["pods"]["target"]["averageValue"])
    assert sockets <= 0.75 * int(manifests.environment("prod", "gateway", SECRETS)["MAX_CONNECTIONS"])
    made = {rule["name"]["as"] for rule in manifests.adapter_rules()}
    assert {wanted["gateway"]["pods"]["metric"]["name"]} == made
    assert wanted["chat-service"]["resource"]["name"] == "cpu"


def test_full_gateway_fits_memory_limit() -> None:
    limit = manifests.container("prod", "gateway")["resources"]["limits"]["memory"]
    assert limit == "1Gi"
    sockets = int(manifests.environment("prod", "gateway", SECRETS)["MAX_CONNECTIONS"])
    assert GATEWAY_BASE_BYTES + sockets * SOCKET_BYTES < 0.5 * 1024 * MIB


@per_overlay
def test_selectors_match_existing_pods(overlay: str) -> None:
    labelled = [pod["metadata"]["labels"] for pod in manifests.pods(overlay).values()]
    if overlay == "prod":  # labels set by the operators
        labelled += [{"app.kubernetes.io/name": "rabbitmq"}, {"app": "mongodb-svc"}]
    selectors = [service["spec"]["selector"] for service in manifests.of_kind(overlay, "Service").values()]
    selectors += [
        budget["spec"]["selector"]["matchLabels"]
        for budget in manifests.of_kind(overlay, "PodDisruptionBudget").values()
    ]
    for policy in manifests.of_kind(overlay, "NetworkPolicy").values():
        selectors += pod_selectors(policy["spec"])
    assert len(selectors) > 15
    for selector in selectors:
        assert any(selects(selector, labels) for labels in labelled), selector


def pod_selectors(node: Any) -> list[Any]:
    """Return all pod selectors in this namespace, at any depth."""
    match node:
        case dict():
            own = [node["podSelector"]] if "podSelector" in node else []
            own = [one.get("matchLabels", one) for one in own]
            return own + [found for value in node.values() for found in pod_selectors(value)]
        case list():
            return [found for value in node for found in pod_selectors(value)]
    return []


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a selector (labels or In expressions) selects a pod."""
    if "matchExpressions" in selector:
        return all(labels.get(one["key"]) in one["values"] for one in selector["matchExpressions"])
    return selector.items() <= labels.items()


def test_every_service_has_budget_and_is_scraped() -> None:
    assert set(manifests.of_kind("prod", "PodDisruptionBudget")) == set(DEPLOYMENTS)
    (monitor,) = manifests.of_kind("prod", "PodMonitor").values()
    wanted = monitor["spec"]["selector"]["matchLabels"]
    for name in DEPLOYMENTS:
        assert wanted.items() <= manifests.pods("prod")[name]["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} == {"admin"}


def test_ingress_timeout_exceeds_gateway_timeout() -> None:
    (ingress,) = manifests.of_kind("prod", "Ingress").values()
    annotations = ingress["metadata"]["annotations"]
    assert annotations["haproxy.org/timeout-tunnel"] == "1h"
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "3600"
    assert load(SETTINGS["gateway"], SECRETS).connection_timeout_s < 3600 / 2  # type: ignore[attr-defined]
