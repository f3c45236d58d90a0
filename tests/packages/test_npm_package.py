"""The JavaScript client's tarball in a fresh Node project, a fresh Vite project and a strict TypeScript project."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.local.settings import PROJECT
from tests.support.browser import CHROMIUM, INSTALL, Visitor, chromium
from tests.support.local_system import LocalSystem
from tests.support.node import OPTIONS, node
from tests.support.people import people
from tests.support.services import free_port
from tests.support.tokens import mint

pytestmark = pytest.mark.long

PACKAGE = PROJECT / "gateway" / "client" / "javascript"
TIMEOUT_S = 240.0

NODE_PROGRAM = """
import { RealtimeClient, RealtimeError } from 'realtime-client';

const [url, token, room] = process.argv.slice(2);
const client = new RealtimeClient('', token, { url });
const shown = new Promise((resolve) => client.on('chat:message', resolve));
await client.connect();
await client.subscribe('chatroom', { chatroomId: room });
const { seq } = await client.sendMessage(room, 'from a tarball');
const refused = await client.subscribe('chatroom', { chatroomId: 'room_none' }).catch((error) => error);
console.log(JSON.stringify([seq, (await shown).message, refused instanceof RealtimeError, refused.code]));
client.close();
"""
VITE_PAGE = """<!doctype html>
<title>fresh</title>
<link rel="icon" href="data:,">
<p id="out">waiting</p>
<script type="module" src="/main.js"></script>
"""
VITE_PROGRAM = """
import { RealtimeClient } from 'realtime-client';

const { url, token, room } = Object.fromEntries(new URLSearchParams(location.search));
const client = new RealtimeClient('', token, { url });
client.on('chat:message', ({ message }) => { document.querySelector('#out').textContent = message; });
client.connect();
client.subscribe('chatroom', { chatroomId: room });
client.sendMessage(room, 'from a bundle');
"""
TYPED_PROGRAM = """
import { RealtimeClient, type ChatMessage, type Price, type ServerEvents } from 'realtime-client';

const client = new RealtimeClient('', async (reason) => reason, { url: 'ws://127.0.0.1' });
client.on('chat:message', (data) => { const message: ChatMessage = data; message.seq.toFixed(); });
client.on('market:price', (data: Price) => data.bid?.toFixed());
client.on('member:joined', ({ memberCount }) => memberCount.toFixed());
client.on('post:created', (data) => { const extra: unknown = data['anything']; return void extra; });
const counts: Record<keyof ServerEvents, number> | undefined = undefined;
const { replayed } = await client.subscribe('chatroom', { chatroomId: 'room_1', since: 3 });
// @ts-expect-error the channel needs a room
client.subscribe('chatroom', { symbols: [] });
export { counts, replayed };
"""
TS_CONFIG = {"compilerOptions": {"strict": True, "noEmit": True, "target": "es2022", "module": "nodenext"}}


async def run(directory: Path, *command: str) -> str:
    """Run a command in `directory` and return its output; fails the test with the output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(TIMEOUT_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-4000:]
    return output.decode()


@pytest.fixture(scope="module")
async def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `npm pack`."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not on the PATH")
    directory: Path = tmp_path_factory.mktemp("tarball")
    name = await run(PACKAGE, "npm", "pack", "--silent", "--pack-destination", str(directory))
    return directory / name.strip()


async def fresh_project(directory: Path, tarball: Path, *tools: str) -> Path:
    """An npm project that installed the tarball and `tools`."""
    (directory / "package.json").write_text(json.dumps({"name": "fresh", "private": True, "type": "module"}))
    await run(directory, "npm", "install", "--no-audit", "--no-fund", "--silent", str(tarball), *tools)
    return directory


@asynccontextmanager
async def preview(directory: Path) -> AsyncIterator[str]:
    """Serve a built Vite project and yield its address."""
    port = free_port()
    vite = str(directory / "node_modules" / ".bin" / "vite")
    process = await asyncio.create_subprocess_exec(
        *(vite, "preview", "--host", "127.0.0.1", "--port", str(port), "--strictPort"),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while str(port) not in re.sub(r"\x1b\[\d+m", "", (await process.stdout.readline()).decode()):
                assert process.returncode is None
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        await process.wait()


async def test_tarball_holds_the_modules_and_their_types(tarball: Path) -> None:
    names = set((await run(tarball.parent, "tar", "--list", "--file", str(tarball))).split())
    sources = {path.name for path in PACKAGE.iterdir() if path.suffix in (".js", ".ts", ".json", ".md")}
    assert names == {f"package/{name}" for name in sources}


async def test_fresh_node_project_uses_the_tarball(system: LocalSystem, tarball: Path, tmp_path: Path) -> None:
    entries = system.entries()
    john = people(entries["GATEWAY_URL"])("john")
    room = await john.create_room()
    project = await fresh_project(tmp_path, tarball)
    (project / "main.js").write_text(NODE_PROGRAM)
    output = await run(project, node(), *OPTIONS, "main.js", entries["GATEWAY_WS_URL"], mint(john.id), room)
    assert json.loads(output) == [1, "from a tarball", True, "NOT_FOUND"]


async def test_fresh_vite_project_bundles_the_tarball(system: LocalSystem, tarball: Path, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: {INSTALL}")
    entries = system.entries()
    john = people(entries["GATEWAY_URL"])("john")
    room = await john.create_room()
    project = await fresh_project(tmp_path, tarball, "vite@7")
    (project / "index.html").write_text(VITE_PAGE)
    (project / "main.js").write_text(VITE_PROGRAM)
    await run(project, "npx", "vite", "build")
    async with preview(project) as address, chromium() as browser:
        query = f"?url={entries['GATEWAY_WS_URL']}&token={mint(john.id)}&room={room}"
        async with Visitor.arrive(browser, address + query) as visitor:
            await visitor.page.get_by_text("from a bundle").wait_for()


async def test_strict_typescript_accepts_every_event(tarball: Path, tmp_path: Path) -> None:
    project = await fresh_project(tmp_path, tarball, "typescript@5")
    (project / "tsconfig.json").write_text(json.dumps(TS_CONFIG))
    (project / "main.ts").write_text(TYPED_PROGRAM)
    await run(project, "npx", "tsc", "--project", ".")
