"""The instructions of deploy/container/Dockerfile, as far as its tests need them."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from deploy.local.settings import PROJECT

DOCKERFILE = PROJECT / "deploy" / "container" / "Dockerfile"


class Instruction(NamedTuple):
    """One instruction, its lines joined."""

    word: str
    rest: str


def instructions() -> list[Instruction]:
    """All instructions in order."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [Instruction(*line.strip().split(maxsplit=1)) for line in lines]


def of(word: str) -> list[str]:
    """What follows this word, wherever it stands."""
    return [instruction.rest for instruction in instructions() if instruction.word == word]


def command_of(text: str) -> list[str]:
    """The words of `CMD [...]`."""
    words = json.loads(text[text.index("[") :])
    assert all(isinstance(word, str) for word in words)
    return list(words)


def copied() -> list[tuple[str, str]]:
    """From where in the tree to where in the image; what one stage takes from another is left out."""
    return [(source, target) for source, target in (rest.split() for rest in of("COPY") if "--from" not in rest)]


def lay_out(directory: Path) -> Path:
    """Copy what the image gets to below `directory`; returns the image's working directory there."""
    for source, target in copied():
        place = directory / target.strip("/")
        if source.endswith("/"):
            shutil.copytree(PROJECT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / source, place)
    return directory / of("WORKDIR")[-1].strip("/")


def environment() -> dict[str, str]:
    """The image's variables."""
    return dict(pair.split("=", 1) for rest in of("ENV") for pair in rest.split())
