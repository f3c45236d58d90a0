"""Both overlays, applied to a real API server with strict validation."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.k8s.api_server import GO, ApiServer
from tests.k8s.operator_kinds import definitions
from tests.support import manifests
from tests.support.manifests import K8S, OVERLAYS

pytestmark = [pytest.mark.long, pytest.mark.skipif(GO is None, reason="Go is missing; it builds the API server")]
APPLY = ("apply", "--server-side", "--validate=strict")

per_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Yield an API server that knows the operators' kinds."""
    with ApiServer(tmp_path_factory.mktemp("kubernetes")) as running:
        kinds = json.dumps({"apiVersion": "v1", "kind": "List", "items": definitions()})
        applied = running.kubectl(*APPLY, "-f", "-", text=kinds)
        assert applied.returncode == 0, applied.stderr
        waited = running.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=60s")
        assert waited.returncode == 0, waited.stderr
        yield running


@per_overlay
def test_overlay_applies_without_warning(server: ApiServer, overlay: str) -> None:
    applied = server.kubectl(*APPLY, "-k", str(K8S / "overlays" / overlay))
    assert (applied.returncode, applied.stderr) == (0, "")
    assert len(applied.stdout.splitlines()) == len(manifests.build(overlay))


@per_overlay
def test_applied_overlay_does_not_differ(server: ApiServer, overlay: str) -> None:
    for _ in range(2):
        applied = server.kubectl(*APPLY, "-k", str(K8S / "overlays" / overlay))
        assert applied.returncode == 0, applied.stderr
    difference = server.kubectl("diff", "--server-side", "-k", str(K8S / "overlays" / overlay))
    assert (difference.returncode, difference.stdout, difference.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("Deployment", "gateway", "spec/template/spec/terminationGracePeriodSeconds"),
        ("NetworkPolicy", "broker", "spec/ingress/0/from/1/namespaceSelector"),
        ("RabbitmqCluster", "rabbitmq", "spec/tls/secretName"),
        ("MongoDBCommunity", "mongodb", "spec/security/tls/enabled"),
        ("PrometheusRule", "realtime", "spec/groups/0/rules/0/expr"),
    ],
)
def test_misspelled_field_is_refused(server: ApiServer, kind: str, name: str, path: str) -> None:
    resource = manifests.of_kind("prod", kind)[name]
    misspelled = copy.deepcopy(resource)
    *parents, field = path.split("/")
    place: Any = misspelled
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[f"{field}s"] = place.pop(field)
    # Applied before, so that the namespace exists.
    applied = server.kubectl(*APPLY, "-k", str(K8S / "overlays" / "prod"))
    assert applied.returncode == 0, applied.stderr
    accepted = server.kubectl(*APPLY, "--dry-run=server", "-f", "-", text=json.dumps(resource))
    assert accepted.returncode == 0, accepted.stderr
    refused = server.kubectl(*APPLY, "--dry-run=server", "-f", "-", text=json.dumps(misspelled))
    assert refused.returncode != 0
    assert f"{field}s" in refused.stderr
