"""Answers as raw bytes, for byte-wise comparison."""

import json
from typing import Any, NamedTuple

import aiohttp

from tests.support.live_client import TIMEOUT_S

CHANGING_HEADERS = {"date", "x-request-id"}


class RawAnswer(NamedTuple):
    """An HTTP status, a frame's type or error code, or a close code, with all of the answer's bytes."""

    outcome: str
    content: tuple[tuple[str, str], ...]

    def without(self, id_: str) -> "RawAnswer":
        """Return the same answer with this id masked."""
        return RawAnswer(self.outcome, tuple((name, value.replace(id_, "<id>")) for name, value in self.content))


async def rest(http: aiohttp.ClientSession, token: str | None, method: str, url: str, body: Any) -> RawAnswer:
    """Return the answer to a REST call."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with http.request(method, url, headers=headers, json=body) as response:
        content = [(name.lower(), value) for name, value in response.headers.items()]
        kept = [pair for pair in content if pair[0] not in CHANGING_HEADERS]
        return RawAnswer(str(response.status), (*sorted(kept), ("body", await response.text())))


class RecordingSocket:
    """One socket that records the text of every frame. It closes with the HTTP session."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws

    @classmethod
    async def open(cls, http: aiohttp.ClientSession, url: str, token: str | None) -> "RecordingSocket":
        """Connect and send `auth` if there is a token; the next answer shows the result."""
        socket = cls(await http.ws_connect(f"{url}/v1/live"))
        if token is not None:
            await socket._ws.send_json({"type": "auth", "token": token})
        return socket

    async def ask(self, frame: dict[str, Any]) -> RawAnswer:
        """Return the frame that answers this one by `id`, or the close code if the server closes instead."""
        await self._ws.send_json({**frame, "id": "asked"})
        while True:
            message = await self._ws.receive(TIMEOUT_S)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return RawAnswer(str(self._ws.close_code), ())
            answer = json.loads(message.data)
            if answer.get("id") == "asked" and self._ws.close_code is None and not _closes(answer):
                return RawAnswer(answer["data"].get("code", "ok"), (("frame", message.data),))


def _closes(answer: dict[str, Any]) -> bool:
    return bool(answer["type"] == "error" and answer["data"]["code"] == "UNAUTHORIZED")
