"""Checks of deploy/container/compose.yaml that need no Docker."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from deploy.local.settings import PROJECT
from tests.support import dockerfile
from tests.support.settings_names import SETTINGS, default, names

DEPLOY = PROJECT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_compose_file_is_valid() -> None:
    compose = PyCompose.from_json(json.dumps(COMPOSE))
    compose.validate()
    assert set(SETTINGS) < set(compose.service_names())


@pytest.mark.parametrize("service", SETTINGS)
def test_every_variable_is_a_setting_of_its_service(service: str) -> None:
    assert set(SERVICES[service]["environment"]) <= names(service)


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
def test_images_are_pinned_by_tag(name: str) -> None:
    image = SERVICES[name]["image"]
    assert image == "realtime:local" or re.search(r":v?\d+\.\d+\.\d+(-|$)", image)


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


def _default(configuration: str, variable: str) -> str:
    found = re.search(rf"\$\{{{variable}-([^}}]*)\}}", configuration)
    assert found is not None
    return found[1]
