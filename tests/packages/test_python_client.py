"""The Python client's wheel in an empty virtual environment, against the running system."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from deploy.local.settings import PROJECT
from shared.version import VERSION
from tests.support.fresh_python import FreshPython, build_wheel
from tests.support.local_system import LocalSystem
from tests.support.people import people
from tests.support.tokens import mint

PACKAGE = PROJECT / "gateway" / "client" / "python"
PROGRAM = """
import asyncio, sys
from importlib.metadata import version
from realtime_client import RealtimeClient

async def main(url, token, room):
    async with RealtimeClient(url, token) as client:
        events = client.events("chat:message")
        await client.subscribe("chatroom", chatroom_id=room)
        ack = await client.send_message(room, "from a wheel")
        event = await anext(events)
        print(version("realtime-client"), ack["seq"], event.data["message"])

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> FreshPython:
    """An environment with the wheel and its dependencies."""
    directory = tmp_path_factory.mktemp("wheel")
    environment = FreshPython(directory / "venv")
    environment.install(str(build_wheel(PACKAGE, directory)))
    return environment


async def test_wheel_works_alone(system: LocalSystem, installed: FreshPython, tmp_path: Path) -> None:
    entries = system.entries()
    john = people(entries["GATEWAY_URL"])("john")
    room = await john.create_room()
    arguments = [entries["GATEWAY_WS_URL"], mint(john.id), room]
    command = [str(installed.python), "-I", "-c", PROGRAM, *arguments]
    result = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.split(maxsplit=2) == [VERSION, "1", "from a wheel\n"], result.stderr


def test_wheel_brings_types_and_two_dependencies(installed: FreshPython) -> None:
    program = (
        "import importlib.metadata as m, pathlib, realtime_client as r\n"
        "print((pathlib.Path(r.__file__).parent / 'py.typed').exists(), sorted(m.requires('realtime-client')))"
    )
    result = subprocess.run([installed.python, "-I", "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout == "True ['aiohttp~=3.14', 'msgspec~=0.22']\n", result.stderr
