"""The module map in docs/architecture.md lists exactly the modules of the tree."""

import re
from pathlib import Path, PurePosixPath

import pytest

PROJECT = Path(__file__).parents[2]
CLIENT = "gateway/client/python/realtime_client"
PACKAGES = ("shared", "gateway", CLIENT, "chat_service", "market_feed", "notifier")
DIRECTORIES = ("deploy", "tests")


def module_map() -> dict[str, list[str]]:
    """Return the table rows of each section of the map, by the directory in the section's heading."""
    text = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    body = text.partition("\n## Module map\n")[2].partition("\n## ")[0]
    sections: dict[str, list[str]] = {}
    for part in body.split("\n### ")[1:]:
        heading, _, content = part.partition("\n")
        rows = [line for line in content.splitlines() if line.startswith("|")][2:]
        for directory in re.findall(r"[\w/]+(?=/)", heading):
            sections[directory] = rows
    return sections


def mapped(package: str, rows: list[str]) -> list[str]:
    """Return the modules in the rows. A bare file name belongs to the directory named last in its row."""
    found: list[str] = []
    for row in rows:
        directory = PurePosixPath(package)
        for name in re.findall(r"[`*]([\w./]+(?:\.py|/))[`*]", row):
            if name.endswith("/"):
                directory = PurePosixPath(package, name)
                continue
            path = PurePosixPath(name)
            if path.parent.name:
                directory = PurePosixPath(package, path.parent)
            found.append(str(directory / path.name))
    return found


def modules(package: str) -> set[str]:
    """Return the modules of a package without each `__init__.py`, which introduces its package."""
    paths = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / package).rglob("*.py")}
    return {path for path in paths if not path.endswith("/__init__.py") and (package == CLIENT or CLIENT not in path)}


@pytest.mark.parametrize("package", PACKAGES)
def test_map_lists_every_module_once(package: str) -> None:
    listed = mapped(package, module_map()[package])
    assert len(modules(package)) > 10, "the package was not read"
    assert sorted(modules(package) - set(listed)) == [], "modules missing from docs/architecture.md"
    assert sorted(set(listed) - modules(package)) == [], "docs/architecture.md lists modules that do not exist"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_map_lists_every_directory(directory: str) -> None:
    rows = "\n".join(module_map()[directory])
    listed = set(re.findall(rf"`({directory}/\w+)/`", rows))
    inside = {path.name for path in (PROJECT / directory).iterdir() if path.is_dir()} - {"__pycache__"}
    assert listed == {f"{directory}/{name}" for name in inside}
