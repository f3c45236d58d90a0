"""The docstring of each package names every module of the package, and no module that does not exist."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CLIENT = PROJECT / "gateway" / "client" / "python" / "realtime_client"
ROOTS = ("shared", "gateway", "chat_service", "market_feed", "notifier", "deploy")
PACKAGES = sorted(
    path.parent.relative_to(PROJECT).as_posix() for root in ROOTS for path in (PROJECT / root).rglob("__init__.py")
)


def contents(package: Path) -> set[str]:
    """Return the modules and packages directly inside a package, without the composition root."""
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    return modules | {path.parent.name for path in package.glob("*/__init__.py")}


def named(package: Path) -> set[str]:
    """Return the lower-case names in backticks in the package's docstring."""
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    assert docstring is not None
    return set(re.findall(r"`([a-z][a-z_0-9]*)(?:\.py|/)?`", docstring))


def test_packages_are_found() -> None:
    assert {*ROOTS, "gateway/live", "deploy/local", "shared/bus"} <= set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_docstring_names_every_module(package: str) -> None:
    assert sorted(contents(PROJECT / package) - named(PROJECT / package)) == []


@pytest.mark.parametrize("package", [package for package in PACKAGES if PROJECT / package != CLIENT])
def test_docstring_names_no_missing_module(package: str) -> None:
    directory = PROJECT / package
    inside = {path.stem for path in directory.iterdir()}
    others = {"realtime", "docs"}  # the command line, the directory
    assert sorted(named(directory) - inside - others) == []
