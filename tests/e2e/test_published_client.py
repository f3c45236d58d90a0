"""The JavaScript client that the product's owner published, unmodified, against the running system."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.ids import Prefix, new_id
from tests.support.events import cloud_event, publish
from tests.support.local_system import LocalSystem
from tests.support.people import people
from tests.support.tokens import mint

HERE = Path(__file__).parent
PROGRAM = HERE / "published_client.mjs"
VERBATIM = HERE / "realtime_client.verbatim.js"
TIMEOUT_S = 20.0

Printed = dict[str, list[Any]]


def node() -> str:
    """The Node that has a WebSocket built in; skips the test where there is none."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("node is not on the PATH")
    probe = [path, "--experimental-websocket", "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
    if subprocess.run(probe, capture_output=True, timeout=30).returncode:
        pytest.skip("this node has no WebSocket built in")
    return path


@asynccontextmanager
async def running(**environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(node(), "--no-warnings", "--experimental-websocket", str(PROGRAM)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def read_until(process: asyncio.subprocess.Process, printed: Printed, type_: str, count: int = 1) -> None:
    """Take in what the program prints until it has had so many events of a type."""
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        while len(printed.get(type_, [])) < count:
            line = await process.stdout.readline()
            assert line, f"the program ended; it had {printed}"
            if line.startswith(b"{"):
                event = json.loads(line)
                printed.setdefault(event["type"], []).append(event["data"])


def test_class_is_the_published_one_to_the_letter() -> None:
    verbatim = VERBATIM.read_text()
    assert verbatim.startswith("class RealtimeClient {\n")
    assert f"// Verbatim from here\n{verbatim}// to here\n" in PROGRAM.read_text()


async def test_published_client_chats_sees_prices_and_gets_notifications(system: LocalSystem) -> None:
    entries = system.entries()
    john = people(entries["GATEWAY_URL"])("john", firstName="John", lastName="Doe")
    room = await john.create_room()
    printed: Printed = {}
    token = mint(john.id, firstName="John", lastName="Doe")
    async with running(GATEWAY_WS_URL=entries["GATEWAY_WS_URL"], TOKEN=token, USER_ID=john.id, ROOM_ID=room) as process:
        await read_until(process, printed, "subscribed", 3)
        told = {
            "userId": john.id,
            "title": "New Comment on Your Post",
            "message": "John Doe commented on your post",
            "priority": "medium",
        }
        body = cloud_event(new_id(Prefix.COMMAND), "notification.created", told)
        await publish(entries["AMQP_URL"], "notification.created", body)
        for type_ in ("chat:message", "market:price", "notification:new"):
            await read_until(process, printed, type_)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == 0
    assert printed["auth:ok"][0]["userId"] == john.id
    assert [answer["channel"] for answer in printed["subscribed"]] == ["chatroom", "market", "notifications"]
    message, price, notification = (printed[type_][0] for type_ in ("chat:message", "market:price", "notification:new"))
    assert {"chatroomId": room, "userId": john.id, "message": "Hello everyone!"}.items() <= message.items()
    assert {"messageId", "timestamp"} <= message.keys()
    assert price["symbol"] in {"EUR/USD", "GBP/JPY"}
    assert {"price", "change", "changePercent"} <= price.keys()
    assert {name: notification[name] for name in ("title", "message", "priority")}.items() <= told.items()
    assert notification["id"].startswith("notif_")
    assert "error" not in printed
    (stored,) = await john.data("GET", f"/v1/chatrooms/{room}/messages")
    assert (stored["id"], stored["user"]["firstName"]) == (message["messageId"], "John")
