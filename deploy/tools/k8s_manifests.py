"""Write the Kubernetes manifests that have another source: `make k8s-manifests`.

- The PrometheusRule: deploy/prometheus/rules.yml, without the alerts on HAProxy, which does not run in a cluster.
- The broker's accounts and exchanges for the Messaging Topology Operator: deploy/rabbitmq/permissions.json.
- The definitions of the development broker: the same file, with a public password.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from deploy.local.settings import PROJECT
from deploy.tools.broker_definitions import password_hash, user_names

K8S = PROJECT / "deploy" / "k8s"
RULES = PROJECT / "deploy" / "prometheus" / "rules.yml"
PERMISSIONS = PROJECT / "deploy" / "rabbitmq" / "permissions.json"
LEFT_OUT = frozenset({"balancer"})
CLUSTER = {"name": "rabbitmq"}
DEVELOPMENT_PASSWORD = "development"  # noqa: S105 - public
DEVELOPMENT_SALT = b"dev."

Resource = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Writes strings of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def manifests() -> dict[Path, str]:
    """Return the content of each generated file."""
    permissions = json.loads(PERMISSIONS.read_text())
    return {
        K8S / "monitoring" / "rules.yaml": _dump("deploy/prometheus/rules.yml", [prometheus_rule()]),
        K8S / "overlays" / "prod" / "rabbitmq-accounts.yaml": _dump(
            "deploy/rabbitmq/permissions.json", broker_resources(permissions)
        ),
        K8S / "overlays" / "dev" / "definitions.json": json.dumps(development_definitions(permissions), indent=2)
        + "\n",
    }


def prometheus_rule() -> Resource:
    """Return the rules as the Prometheus Operator reads them."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    metadata = {"name": "realtime", "labels": {"release": "set-by-cluster.yaml"}}
    spec = {"groups": [group for group in groups if group["name"] not in LEFT_OUT]}
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata, "spec": spec}


def broker_resources(permissions: Resource) -> list[Resource]:
    """Return a User and a Permission for each account, whose secret is `amqp-<account>`, and the exchanges."""
    found: list[Resource] = []
    for permission in permissions["permissions"]:
        name = permission["user"]
        patterns = {kind: permission[kind] for kind in ("configure", "write", "read")}
        found.append(_topology("User", name, {"importCredentialsSecret": {"name": f"amqp-{name}"}}))
        granted = {"vhost": permission["vhost"], "userReference": {"name": name}, "permissions": patterns}
        found.append(_topology("Permission", name, granted))
    for exchange in permissions["exchanges"]:
        described = {
            "name": exchange["name"],
            "vhost": exchange["vhost"],
            "type": exchange["type"],
            "durable": exchange["durable"],
            "autoDelete": exchange["auto_delete"],
        }
        found.append(_topology("Exchange", exchange["name"].replace(".", "-"), described))
    return found


def development_definitions(permissions: Resource) -> Resource:
    """Return RabbitMQ definitions in which every account has the public password."""
    users = [
        {
            "name": name,
            "password_hash": password_hash(DEVELOPMENT_PASSWORD, DEVELOPMENT_SALT),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": [],
        }
        for name in user_names(permissions)
    ]
    return {"users": users, **permissions}


def _topology(kind: str, name: str, spec: Resource) -> Resource:
    return {
        "apiVersion": "rabbitmq.com/v1beta1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"rabbitmqClusterReference": CLUSTER, **spec},
    }


def _dump(source: str, resources: list[Resource]) -> str:
    header = f"# Written by `make k8s-manifests` from {source}.\n"
    return header + yaml.dump_all(resources, Dumper=_Dumper, sort_keys=False, width=4096, allow_unicode=True)


if __name__ == "__main__":
    for file, content in manifests().items():
        file.write_text(content)
