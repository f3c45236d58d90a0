"""Settings of a local run."""

from pathlib import Path

import pytest

from deploy.local.settings import PROJECT, InvalidSettings, read_settings


def test_defaults_are_two_gateways_on_8080() -> None:
    settings = read_settings({})
    assert settings.gateway_host == "127.0.0.1"
    assert (settings.gateways, settings.gateway_port, settings.first_admin_port) == (2, 8080, 9100)
    assert settings.directory == PROJECT / ".local"
    assert settings.amqp_url is None
    assert settings.mongodb_database == "realtime"


def test_environment_overrides_defaults(tmp_path: Path) -> None:
    settings = read_settings(
        {"LOCAL_DIR": str(tmp_path), "GATEWAYS": "3", "GATEWAY_PORT": "0", "AMQP_URL": "amqp://elsewhere/"}
    )
    assert (settings.directory, settings.gateways, settings.gateway_port) == (tmp_path, 3, 0)
    assert settings.amqp_url == "amqp://elsewhere/"


def test_empty_value_counts_as_unset() -> None:
    settings = read_settings({"AMQP_URL": "", "GATEWAYS": ""})
    assert settings.amqp_url is None
    assert settings.gateways == 2


def test_all_invalid_settings_are_reported_together() -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_settings({"GATEWAYS": "many", "GATEWAY_PORT": "65536", "NOTIFIERS": "-1"})
    lines = str(caught.value).splitlines()
    assert [line.split("=")[0] for line in lines] == ["GATEWAYS", "NOTIFIERS", "GATEWAY_PORT"]
