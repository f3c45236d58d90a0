"""The guides' programs in other languages, each with its own toolchain and packages: `make test-snippets`.

Not part of `make test`, since they fetch packages and compile. Missing toolchains are skipped by name.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_guides import EVENTS_GUIDE
from tests.support.local_system import LocalSystem
from tests.support.people import Person
from tests.support.snippets import snippets
from tests.support.tokens import SECRET

TIMEOUT_S = 300.0
Prepared = list[str]


def run(directory: Path, *command: str, **environment: str) -> None:
    done = subprocess.run(
        command, cwd=directory, env=os.environ | environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stdout + done.stderr


def node(directory: Path, program: str) -> Prepared:
    (directory / "publish.mjs").write_text(program)
    run(directory, "npm", "install", "--no-audit", "--no-fund", "--silent", "amqplib@0.10")
    return ["node", "publish.mjs"]


def go(directory: Path, program: str) -> Prepared:
    (directory / "main.go").write_text(program)
    run(directory, "go", "mod", "init", "publish")
    run(directory, "go", "get", "github.com/rabbitmq/amqp091-go@v1.10.0")
    run(directory, "go", "vet", ".")
    run(directory, "go", "build", "-o", "publish", ".")
    return ["./publish"]


def java(directory: Path, program: str) -> Prepared:
    (directory / "Publish.java").write_text(program)
    for artifact in ("com.rabbitmq:amqp-client:5.25.0", "org.slf4j:slf4j-api:1.7.36"):
        copy = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
        run(directory, "mvn", "-q", copy, f"-Dartifact={artifact}", "-DoutputDirectory=.")
    run(directory, "javac", "-cp", "*", "Publish.java")
    return ["java", "-cp", ".:*", "Publish"]


@pytest.mark.parametrize(
    ("language", "tools", "prepare", "title"),
    [
        ("js", ("node", "npm"), node, "Hello from Node"),
        ("go", ("go",), go, "Hello from Go"),
        ("java", ("javac", "mvn"), java, "Hello from Java"),
    ],
)
async def test_events_guide_program_notifies_user(
    system: LocalSystem,
    tmp_path: Path,
    language: str,
    tools: tuple[str, ...],
    prepare: Callable[[Path, str], Prepared],
    title: str,
) -> None:
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"{', '.join(missing)} is not on this machine")
    (program,) = [snippet for snippet in snippets(EVENTS_GUIDE, language) if "publish" in snippet.words]
    command = prepare(tmp_path, program.text)
    person = Person(system.entries()["GATEWAY_URL"], "user_456", SECRET, {})
    async with await person.live() as client:
        await client.ask("subscribe", channel="notifications")
        run(tmp_path, *command, AMQP_URL=system.entries()["AMQP_URL"])
        assert (await client.data("notification:new"))["title"] == title
