"""A release of the product on disk: the working tree, or a revision of the repository."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from deploy.local.settings import PROJECT

BEFORE_TAGS = "b3cb314"  # the previous release, until there is a tag: the last revision before editing and search
CONSTRAINTS = Path("deploy/container/constraints.txt")


class Release(NamedTuple):
    """A name for people, the interpreter that has its packages, and its files."""

    name: str
    python: Path
    tree: Path


TODAY = Release("today", Path(sys.executable), PROJECT)


def newest_tag() -> str:
    """Return the newest release tag before the present commit; without one, the revision that stands for it."""
    found = _git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^", check=False)
    return found.strip() or BEFORE_TAGS


def checked_out(revision: str, directory: Path) -> Release:
    """Return a revision, written to `directory`, with a virtual environment of its own if its packages differ."""
    tree = directory / "tree"
    tree.mkdir(parents=True)
    archive = subprocess.Popen(("git", "archive", revision), cwd=PROJECT, stdout=subprocess.PIPE)
    subprocess.run(("tar", "-x", "-C", str(tree)), stdin=archive.stdout, check=True)
    if archive.wait():
        raise ValueError(f"{revision} is no revision of this repository")
    return Release(revision, _python_for(tree, directory), tree)


def _python_for(tree: Path, directory: Path) -> Path:
    """Return today's interpreter if it has every package in the version that the tree pins."""
    pinned = _pins(tree / CONSTRAINTS)
    if pinned <= _pins(PROJECT / CONSTRAINTS):
        return TODAY.python
    environment = directory / "venv"
    subprocess.run((sys.executable, "-m", "venv", str(environment)), check=True)
    python = environment / "bin" / "python"
    subprocess.run((str(python), "-m", "pip", "install", "--quiet", "-r", str(tree / CONSTRAINTS)), check=True)
    return python


def _pins(path: Path) -> set[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def _git(*arguments: str, check: bool = True) -> str:
    ended = subprocess.run(("git", *arguments), cwd=PROJECT, capture_output=True, text=True, check=check)
    return ended.stdout
