"""One version for the package, both clients, and the API documents."""

import json
import tomllib

import pytest

from deploy.local.settings import PROJECT
from shared.process.settings import revision
from shared.version import VERSION

CLIENTS = PROJECT / "gateway" / "client"


def test_package_takes_the_version_from_the_code() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "shared.version.VERSION"}


def test_clients_have_the_version_of_the_product() -> None:
    python = tomllib.loads((CLIENTS / "python" / "pyproject.toml").read_text())["project"]["version"]
    javascript = json.loads((CLIENTS / "javascript" / "package.json").read_text())["version"]
    assert (python, javascript) == (VERSION, VERSION)


@pytest.mark.parametrize("document", ["openapi.json", "asyncapi.json"])
def test_documents_have_the_version_of_the_product(document: str) -> None:
    assert json.loads((PROJECT / "docs" / document).read_text())["info"]["version"] == VERSION


def test_revision_is_that_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVISION", "4d7d63b")
    assert revision() == "4d7d63b"
    monkeypatch.delenv("REVISION")
    assert revision() == "unknown"
