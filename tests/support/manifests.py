"""The Kubernetes resources of an overlay, built as `kubectl apply -k` builds them."""

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from deploy.local.settings import PROJECT

K8S = PROJECT / "deploy" / "k8s"
OVERLAYS = ("dev", "prod")
REFERENCE = re.compile(r"\$\((\w+)\)")

Resource = dict[str, Any]


@functools.cache
def build(overlay: str) -> list[Resource]:
    """Return all resources of an overlay. Fails with kubectl's output, even on a warning."""
    kubectl = Path(sys.executable).parent / "kubectl"
    command = [str(kubectl), "kustomize", str(K8S / "overlays" / overlay)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.stderr, result.returncode) == ("", 0), result.stderr
    return [resource for resource in yaml.safe_load_all(result.stdout) if resource is not None]


def of_kind(overlay: str, kind: str) -> dict[str, Resource]:
    """Return the resources of a kind, by name."""
    return {resource["metadata"]["name"]: resource for resource in build(overlay) if resource["kind"] == kind}


def pods(overlay: str) -> dict[str, Resource]:
    """Return the pod templates of Deployments and StatefulSets, by workload name."""
    owners = of_kind(overlay, "Deployment") | of_kind(overlay, "StatefulSet")
    return {name: owner["spec"]["template"] for name, owner in owners.items()}


def container(overlay: str, name: str) -> Resource:
    """Return the only container of a pod."""
    (only,) = pods(overlay)[name]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def environment(overlay: str, name: str, given: dict[str, str]) -> dict[str, str]:
    """Return the variables of a container, in which those of secrets and of maps made outside have the given values.

    A variable that only completes another one, as `$(NAME)`, is left out.
    """
    described = container(overlay, name)
    maps = of_kind(overlay, "ConfigMap")
    found: dict[str, str] = {}
    for source in described["envFrom"]:
        found |= maps[source["configMapRef"]["name"]]["data"]
    parts: set[str] = set()
    for entry in described["env"]:
        value = entry["value"] if "value" in entry else given[entry["name"]]
        for part in REFERENCE.findall(value):
            value = value.replace(f"$({part})", found[part])
            parts.add(part)
        found[entry["name"]] = value
    return {variable: value for variable, value in found.items() if variable not in parts}


def adapter_rules() -> list[Resource]:
    """Return the rules of prometheus-adapter that provide the autoscalers' metrics."""
    rules = yaml.safe_load((K8S / "monitoring" / "adapter-values.yaml").read_text())["rules"]
    return list(rules["custom"])
