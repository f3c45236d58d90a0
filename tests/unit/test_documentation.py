"""The documentation cites files, tests and make targets that exist."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").glob("*.md"))]
ROOTS = "chat_service|deploy|docs|gateway|market_feed|notifier|shared|tests"


def name_of(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_cited_paths_exist(page: Path) -> None:
    cited = re.findall(rf"`((?:{ROOTS})/[\w./-]+)`", page.read_text(encoding="utf-8"))
    assert [path for path in cited if not (PROJECT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_linked_pages_exist(page: Path) -> None:
    linked = re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8"))
    assert [path for path in linked if not (page.parent / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_cited_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    cited = set(re.findall(r"(?:`|^ +|^)make (?:-s )?([a-z][a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert cited <= targets


def test_tests_cited_by_security_page_exist() -> None:
    text = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
    files = set(re.findall(r"[a-z]+/[a-z_/]*test_\w+\.py", text))
    assert len(files) > 5, "the page was not read"
    assert [path for path in files if not (PROJECT / "tests" / path).exists()] == []
    source = (PROJECT / "tests" / "security" / "test_frames.py").read_text(encoding="utf-8")
    names = set(re.findall(r"`(test_\w+)`", text))
    assert len(names) > 5, "the page was not read"
    assert names <= set(re.findall(r"def (test_\w+)\(", source))
