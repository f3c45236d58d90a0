"""Every snippet of docs/client-guide.md runs against the running system."""

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.local_system import LocalSystem
from tests.support.node import OPTIONS, node
from tests.support.people import people
from tests.support.snippets import Snippet, snippets
from tests.support.tokens import mint

PROJECT = Path(__file__).parents[2]
GUIDE = PROJECT / "docs" / "client-guide.md"
ADDRESS = "127.0.0.1:8080"
JAVASCRIPT = (PROJECT / "gateway" / "client" / "javascript").as_uri()
TIMEOUT_S = 60.0
AT_ONCE = 2


def setup(language: str) -> str:
    """Return the snippet that the other snippets of a language build on."""
    (text,) = [snippet.text for snippet in snippets(GUIDE, language) if snippet.words == ("setup",)]
    return text


def web_program(snippet: Snippet) -> str:
    """Return a module that ends by itself."""
    match snippet.words:
        case ("raw",):
            program = snippet.text
        case ("setup",):
            program = f"{snippet.text}client.close();\n"
        case _:
            program = f"{setup('js')}{snippet.text}client.close();\n"
    return program.replace("'realtime-client'", f"'{JAVASCRIPT}/realtime.js'")


def page_program(snippet: Snippet) -> str:
    """Return the script of a page, with a page's globals."""
    script = re.search(r'<script type="module">\n(.*)</script>', snippet.text, re.DOTALL)
    assert script is not None
    page = f"globalThis.location = new URL('http://{ADDRESS}/');\n"
    given = "const { TOKEN: token, ROOM: room } = process.env;\nconst apiKey = '';\n"
    end = "client.on('chat:message', () => client.close());\n"
    return page + given + script[1].replace("'/web/realtime.js'", f"'{JAVASCRIPT}/realtime.js'") + end


def python_program(snippet: Snippet) -> str:
    """Return the setup with the snippet as the body of `example`."""
    if snippet.words:
        return snippet.text
    body = "".join(f"    {line}" if line.strip() else line for line in snippet.text.splitlines(keepends=True))
    head, signature, rest = setup("python").partition("async def example(client: RealtimeClient, room: str) -> None:\n")
    tail = rest[rest.index("\n\nif __name__") :]
    return head + signature + body + tail


Kind = tuple[Callable[[Snippet], str], str]
KINDS: dict[str, Kind] = {
    "js": (web_program, "mjs"),
    "html": (page_program, "mjs"),
    "python": (python_program, "py"),
}


@pytest.mark.parametrize("language", KINDS)
async def test_client_guide_snippets_work(system: LocalSystem, tmp_path: Path, language: str) -> None:
    make, suffix = KINDS[language]
    command = [node(), *OPTIONS] if suffix == "mjs" else [sys.executable, "-W", "error"]
    entries = system.entries()
    address = entries["GATEWAY_URL"].removeprefix("http://")
    meet = people(entries["GATEWAY_URL"])
    found = snippets(GUIDE, language)
    assert found
    slots = asyncio.Semaphore(AT_ONCE)
    failures: dict[str, str] = {}

    async def run(snippet: Snippet) -> None:
        async with slots:
            user = meet("reader")
            room = await user.create_room()
            program = tmp_path / f"line_{snippet.line}.{suffix}"
            program.write_text(make(snippet).replace(ADDRESS, address))
            process = await asyncio.create_subprocess_exec(
                *(*command, str(program)),
                env={"TOKEN": mint(user.id), "ROOM": room},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    output, _ = await process.communicate()
            except TimeoutError:
                process.kill()
                output, _ = await process.communicate()
            if process.returncode != 0:
                failures[snippet.where] = output.decode(errors="replace")

    await asyncio.gather(*map(run, found))
    assert failures == {}


def test_every_client_guide_block_is_run() -> None:
    assert {snippet.language for snippet in snippets(GUIDE)} == set(KINDS)
