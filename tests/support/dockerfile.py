"""A parser for the instructions of deploy/container/Dockerfile that the tests need."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from deploy.local.settings import PROJECT

DOCKERFILE = PROJECT / "deploy" / "container" / "Dockerfile"


class Instruction(NamedTuple):
    """One instruction with its lines joined."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    """Return all instructions in order."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [Instruction(*line.strip().split(maxsplit=1)) for line in lines]


def of(word: str) -> list[str]:
    """Return the arguments of every instruction with this word."""
    return [instruction.rest for instruction in instructions() if instruction.word == word]


def command_of(text: str) -> list[str]:
    """Return the words of `CMD [...]`."""
    words = json.loads(text[text.index("[") :])
    assert all(isinstance(word, str) for word in words)
    return list(words)


def copied() -> list[tuple[str, str]]:
    """Return source and target of each copy from the tree; copies between stages are left out."""
    return [(source, target) for source, target in (rest.split() for rest in of("COPY") if "--from" not in rest)]


def lay_out(directory: Path) -> Path:
    """Copy the image's files below `directory` and return the image's working directory there."""
    for source, target in copied():
        place = directory / target.strip("/")
        if source.endswith("/"):
            shutil.copytree(PROJECT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / source, place)
    return directory / of("WORKDIR")[-1].strip("/")


def environment() -> dict[str, str]:
    """Return the image's variables."""
    return dict(pair.split("=", 1) for rest in of("ENV") for pair in rest.split())
