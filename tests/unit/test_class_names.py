"""One class name stands for one class in the whole tree, private and test classes included."""

import ast
import subprocess
from collections import defaultdict
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def class_places() -> dict[str, list[str]]:
    """Return `path:line` of every class definition by class name."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=PROJECT, capture_output=True, text=True, check=True)
    places: dict[str, list[str]] = defaultdict(list)
    for path in filter(Path.is_file, map(PROJECT.joinpath, listed.stdout.splitlines())):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(PROJECT)}:{node.lineno}")
    return places


def test_class_names_are_unique() -> None:
    places = class_places()
    repeated = [f"{name}: {', '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]
    assert not repeated, "class names with more than one class:\n" + "\n".join(repeated)
    assert len(places) > 100, "the tree was not read"
