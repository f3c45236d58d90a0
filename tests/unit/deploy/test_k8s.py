"""The Kubernetes manifests: they build, they are valid, and they fit the services."""

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from deploy.local.settings import PROJECT
from deploy.tools import k8s_manifests
from shared.bus.topology import PARTITIONS
from shared.process.settings import load
from tests.support import manifests
from tests.support.manifests import OVERLAYS
from tests.support.network_policies import selects
from tests.support.settings_names import SETTINGS, names

KUBERNETES = "1.33.0"
# Their schemas ship with their controllers; `make k8s-check` has fixtures.
FROM_OPERATORS = {"RabbitmqCluster", "User", "Permission", "Exchange", "MongoDBCommunity", "Issuer", "Certificate"}
FROM_OPERATORS |= {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
MADE_OUTSIDE = {"jwt", "amqp-gateway", "amqp-worker", "mongodb-metrics", "ingress-addresses"}
MADE_BY_OPERATORS = {"mongodb-realtime-realtime"}
DEPLOYMENTS = {service.replace("_", "-"): service for service in SETTINGS}
SECRETS = {"AMQP_USERNAME": "account", "AMQP_PASSWORD": "password", "MONGODB_URI": "mongodb://database/"}
SECRETS |= {"JWT_SECRET": "s" * 32, "TRUSTED_PROXIES": "10.42.7.0/24"}
# Those of documentation/annotations.md of haproxytech/kubernetes-ingress 3.2 that may stand on an Ingress.
INGRESS_ANNOTATIONS = {"load-balance", "timeout-server", "forwarded-for", "backend-config-snippet"}
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
            for reference in entry.get("valueFrom", {}).values():
                assert reference["name"] in given
    made = {one["spec"]["secretName"] for one in manifests.of_kind(overlay, "Certificate").values()}
    for pod in manifests.pods(overlay).values():
        for volume in pod["spec"].get("volumes", ()):
            assert volume["secret"]["secretName"] in given | made
    assert not set(manifests.of_kind("prod", "Secret")), "secrets in the tree"


def test_generated_manifests_are_current() -> None:
    for file, content in k8s_manifests.manifests().items():
        assert file.read_text() == content, "make k8s-manifests"


def test_each_service_has_broker_account_of_least_rights() -> None:
    accounts = {"gateway": "gateway"} | dict.fromkeys(("chat-service", "market-feed", "notifier"), "worker")
    users = manifests.of_kind("prod", "User")
    assert set(users) == set(manifests.of_kind("prod", "Permission")) == {*accounts.values(), "publisher"}
    for overlay in OVERLAYS:
        for name, account in accounts.items():
            variables = {entry["name"]: entry for entry in manifests.container(overlay, name)["env"]}
            for part in ("USERNAME", "PASSWORD"):
                reference = variables[f"AMQP_{part}"]["valueFrom"]["secretKeyRef"]
                assert reference["key"] == part.lower()
                # A secret that kustomize generates has a suffix.
                assert re.fullmatch(rf"amqp-{account}(-[a-z0-9]{{10}})?", reference["name"])
            assert users[account]["spec"]["importCredentialsSecret"] == {"name": f"amqp-{account}"}


@per_deployment
def test_production_verifies_broker_and_database_by_private_ca(name: str) -> None:
    (mount,) = manifests.container("prod", name)["volumeMounts"]
    (volume,) = manifests.pods("prod")[name]["spec"]["volumes"]
    assert volume["secret"] == {"secretName": "realtime-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    url = urlsplit(manifests.environment("prod", name, SECRETS)["AMQP_URL"])
    certificates = manifests.of_kind("prod", "Certificate")
    assert (url.scheme, url.port) == ("amqps", 5671)
    assert url.hostname in certificates["rabbitmq-tls"]["spec"]["dnsNames"]
    file = f"{mount['mountPath']}/ca.crt"
    assert parse_qs(url.query) == {"cafile": [file]}
    (database,) = manifests.of_kind("prod", "MongoDBCommunity").values()
    assert database["spec"]["security"]["tls"]["enabled"] is True
    assert database["spec"]["users"][0]["additionalConnectionStringConfig"] == {"tlsCAFile": file}


def test_gateway_trusts_only_proxies_that_the_operator_names() -> None:
    entries = {entry["name"]: entry for entry in manifests.container("prod", "gateway")["env"]}
    # Not optional: without the map the container does not start.
    assert entries["TRUSTED_PROXIES"]["valueFrom"] == {
        "configMapKeyRef": {"name": "ingress-addresses", "key": "ranges"}
    }
    assert "TRUSTED_PROXIES" not in manifests.environment("dev", "gateway", SECRETS)


def test_autoscalers_fit_services() -> None:
    scalers = manifests.of_kind("prod", "HorizontalPodAutoscaler")
    assert {scaler["spec"]["scaleTargetRef"]["name"] for scaler in scalers.values()} == set(scalers)
    for name, scaler in scalers.items():
        # Otherwise every rollout would reset the number of replicas.
        assert "replicas" not in manifests.of_kind("prod", "Deployment")[name]["spec"]
        assert scaler["spec"]["minReplicas"] >= 2
    assert scalers["chat-service"]["spec"]["maxReplicas"] == PARTITIONS
    wanted = {
        name: [metric["pods"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods"]
        for name, scaler in scalers.items()
    }
    assert {name: [one["metric"]["name"] for one in pods] for name, pods in wanted.items()} == {
        "gateway": ["gateway_connections"],
        "chat-service": ["chat_commit_seconds_mean", "chat_query_lag_seconds"],
        "notifier": ["notifier_query_lag_seconds"],
    }
    assert {one["metric"]["name"] for pods in wanted.values() for one in pods} == {
        rule["name"]["as"] for rule in manifests.adapter_rules()
    }
    sockets = int(wanted["gateway"][0]["target"]["averageValue"])
    assert sockets <= 0.75 * int(manifests.environment("prod", "gateway", SECRETS)["MAX_CONNECTIONS"])


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
    selectors = [
        {"matchLabels": service["spec"]["selector"]} for service in manifests.of_kind(overlay, "Service").values()
    ]
    selectors += [budget["spec"]["selector"] for budget in manifests.of_kind(overlay, "PodDisruptionBudget").values()]
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
            return own + [found for value in node.values() for found in pod_selectors(value)]
        case list():
            return [found for value in node for found in pod_selectors(value)]
    return []


def test_every_service_and_node_has_budget_and_is_scraped() -> None:
    assert set(manifests.of_kind("prod", "PodDisruptionBudget")) == {*DEPLOYMENTS, "rabbitmq", "mongodb"}
    monitors = manifests.of_kind("prod", "PodMonitor")
    wanted = monitors["realtime"]["spec"]["selector"]["matchLabels"]
    for name in DEPLOYMENTS:
        assert wanted.items() <= manifests.pods("prod")[name]["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitors["realtime"]["spec"]["podMetricsEndpoints"]} == {"admin"}
    assert monitors["rabbitmq"]["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": "rabbitmq"}
    (database,) = manifests.of_kind("prod", "ServiceMonitor").values()
    assert database["spec"]["selector"]["matchLabels"] == {"app": "mongodb-svc"}


def test_prometheus_finds_monitors_and_rules_by_the_overlays_label() -> None:
    kinds = ("PodMonitor", "ServiceMonitor", "PrometheusRule")
    found = [resource for kind in kinds for resource in manifests.of_kind("prod", kind).values()]
    assert {resource["metadata"]["labels"]["release"] for resource in found} == {"kube-prometheus-stack"}


def test_rules_of_kubernetes_need_no_haproxy() -> None:
    (rule,) = manifests.of_kind("prod", "PrometheusRule").values()
    groups = {group["name"]: group["rules"] for group in rule["spec"]["groups"]}
    assert {"everything", "gateway", "workers", "broker", "database", "volumes"} <= set(groups)
    expressions = [one["expr"] for rules in groups.values() for one in rules]
    assert not [text for text in expressions if "haproxy_" in text]


def test_ingress_uses_annotations_that_its_controller_reads() -> None:
    (ingress,) = manifests.of_kind("prod", "Ingress").values()
    assert ingress["spec"]["ingressClassName"] == "haproxy"
    prefix = "haproxy.org/"
    annotations = {name.removeprefix(prefix): value for name, value in ingress["metadata"]["annotations"].items()}
    assert set(annotations) <= INGRESS_ANNOTATIONS


def test_ingress_rules_are_those_of_haproxy_cfg() -> None:
    (ingress,) = manifests.of_kind("prod", "Ingress").values()
    snippet = ingress["metadata"]["annotations"]["haproxy.org/backend-config-snippet"].splitlines()
    deployed = {line.strip() for line in (PROJECT / "deploy/haproxy/haproxy.cfg").read_text().splitlines()}
    assert set(snippet) <= deployed
    assert {"http-request del-header X-Forwarded-For", "http-request del-header Forwarded"} <= set(snippet)
    assert {"502", "503", "504"} <= {line.split()[2] for line in snippet if line.startswith("http-error status")}
