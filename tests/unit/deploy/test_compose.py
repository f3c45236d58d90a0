"""Checks of deploy/container/compose.yaml that need no Docker."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from deploy.local.settings import PROJECT
from deploy.tools import first_start
from shared.process.settings import SECRET_FIELDS
from tests.containers import compose_file
from tests.support import dockerfile
from tests.support.settings_names import SETTINGS, default, names

DEPLOY = PROJECT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FROM_FILE = {f"{name.upper()}_FILE" for name in SECRET_FIELDS}
PUBLISHED = {name for name, described in SERVICES.items() if "ports" in described}


def test_compose_file_is_valid() -> None:
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", json.dumps(COMPOSE))
    for name, pinned in compose_file.images().items():
        text = text.replace(f"${{{name}}}", pinned)
    compose = PyCompose.from_json(text)
    compose.validate()
    assert set(SETTINGS) < set(compose.service_names())


@pytest.mark.parametrize("service", SETTINGS)
def test_every_variable_is_a_setting_of_its_service(service: str) -> None:
    assert set(SERVICES[service]["environment"]) <= names(service) | FROM_FILE


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    described = SERVICES[name]
    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    assert described["security_opt"] == ["no-new-privileges:true"]
    assert described["mem_limit"]
    assert described["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    user = described["user"].split(":")[0]
    assert (user == "0", "cap_add" in described) == ((True, True) if name == "secrets" else (False, False))


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])


def test_no_password_is_written_down() -> None:
    for described in SERVICES.values():
        for variable, value in (described.get("environment") or {}).items():
            assert not re.search("PASSWORD|SECRET|_URL|URI", variable) or str(value).startswith("/run/realtime/"), value


def test_only_workers_reach_the_database() -> None:
    assert peers("mongodb") == {"chat_service", "market_feed", "notifier", "mongodb-init"}


def test_only_balancer_and_prometheus_and_broker_share_a_network_with_gateways() -> None:
    assert peers("gateway") == {"haproxy", "prometheus", "rabbitmq"}


def test_publisher_reaches_the_broker_only() -> None:
    assert peers("publish") == {"rabbitmq"}


def test_trusted_proxies_are_the_network_of_the_balancer() -> None:
    (subnet,) = COMPOSE["networks"]["front"]["ipam"]["config"]
    assert SERVICES["gateway"]["environment"]["TRUSTED_PROXIES"] == subnet["subnet"]


def test_each_secret_is_made_for_its_reader() -> None:
    made = {volume.rpartition("/")[2]: volume.split(":")[0] for volume in SERVICES["secrets"]["volumes"][2:]}
    assert made == {reader: f"{reader}-secrets" for reader in first_start.READERS}
    for name, described in SERVICES.items():
        if name != "secrets":
            mounted = [one for one in described.get("volumes", []) if one.endswith(":/run/realtime:ro")]
            assert len(mounted) <= 1


@pytest.mark.parametrize("service", SETTINGS)
def test_containers_are_healthy_once_ready(service: str) -> None:
    assert "/readyz" in SERVICES[service]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("service", SETTINGS)
def test_services_are_hardened_and_have_time_to_drain(service: str) -> None:
    described = SERVICES[service]
    assert described["command"] == ["python", "-m", service]
    assert described["read_only"] is True
    assert described["cap_drop"] == ["ALL"]
    grace_s = float(described["stop_grace_period"].removesuffix("s"))
    drain_timeout_s = default(service, "DRAIN_TIMEOUT_S")
    assert isinstance(drain_timeout_s, float)
    assert grace_s >= drain_timeout_s + 5


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_in_one_file(name: str) -> None:
    image = SERVICES[name]["image"]
    if image != "realtime:local":
        pinned = compose_file.images()[image.removeprefix("${").removesuffix("}")]
        assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?(@sha256:[0-9a-f]{64})?$", pinned)


@pytest.mark.parametrize("name", SERVICES)
def test_mounted_files_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            assert (DEPLOY / "container" / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


def test_dependencies_exist() -> None:
    for described in SERVICES.values():
        assert set(described.get("depends_on", ())) <= set(SERVICES)


def test_haproxy_uses_gateway_ports() -> None:
    configuration = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    name, port = _default(configuration, "GATEWAY").split(":")
    assert name in SERVICES
    assert int(port) == default("gateway", "GATEWAY_PORT")
    assert _default(configuration, "GATEWAY_ADMIN_PORT") == dockerfile.environment()["ADMIN_PORT"]


def test_haproxy_timeout_exceeds_gateway_timeout() -> None:
    """The gateway must close a silent socket first, with a close code."""
    configuration = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    tunnel = re.search(r"timeout tunnel (\d+)h", configuration)
    connection_timeout_s = default("gateway", "CONNECTION_TIMEOUT_S")
    assert isinstance(connection_timeout_s, float)
    assert tunnel is not None and int(tunnel[1]) * 3600 > 2 * connection_timeout_s


def test_grafana_provisions_dashboards() -> None:
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/realtime.yaml").read_text())["providers"][0]
    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    assert source["url"].removeprefix("http://").split(":")[0] in SERVICES


def peers(name: str) -> set[str]:
    """Return the containers that share a network with one."""
    own = set(networks_of(name))
    return {other for other in SERVICES if other != name and own & set(networks_of(other))}


def networks_of(name: str) -> list[str]:
    """Return the networks of a container. One without any would get the default network."""
    described = SERVICES[name]
    return [] if described.get("network_mode") == "none" else list(described["networks"])


def _default(configuration: str, variable: str) -> str:
    found = re.search(rf"\$\{{{variable}-([^}}]*)\}}", configuration)
    assert found is not None
    return found[1]
