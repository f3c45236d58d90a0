"""A client that follows the protocol: reconnects after every close, resumes with `since`, resends until acked."""

import asyncio
import itertools
import random
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp

from tests.support.tokens import SECRET, mint

RETRY_S = 0.2
RESEND_AFTER_S = 5.0


class AckTime(NamedTuple):
    """When a message was first sent, and when it was acknowledged."""

    sent_at_s: float
    acked_at_s: float


class Trader:
    """One user with one socket: on some rooms from their first message on, on symbols, and on the inbox."""

    def __init__(
        self,
        name: str,
        url: str,
        rooms: list[str],
        symbols: tuple[str, ...] = (),
        *,
        has_inbox: bool = False,
        secret: str = SECRET,
    ) -> None:
        self.name = name
        self._secret = secret
        self.symbols = symbols
        self.inbox: list[int] | None = [] if has_inbox else None
        self.prices_back = 0  # prices that were older than one received before
        self.priced_at_s: list[float] = []
        self.acks: list[AckTime] = []
        self._price_seqs: dict[str, int] = {}
        self.seqs: dict[str, list[int]] = {room: [] for room in rooms}
        self.acked: dict[str, tuple[str, int]] = {}
        self.connected = asyncio.Event()
        self.closes: list[int | None] = []
        self.refused = 0
        self.not_recovered = 0
        self._url = url
        self._unanswered: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._ws: aiohttp.ClientWebSocketResponse | None = None

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Stay connected until cancelled."""
        while True:
            wait_s = RETRY_S
            try:
                async with http.ws_connect(f"{self._url}/v1/live", timeout=aiohttp.ClientWSTimeout(ws_close=1)) as ws:
                    await ws.send_json(
                        {"type": "auth", "token": mint(self.name, secret=self._secret), "subscriptions": self._places()}
                    )
                    wait_s = await self._read(ws)
                    self.closes.append(ws.close_code)
            except aiohttp.ClientError:
                self.refused += 1
            finally:
                self.connected.clear()
                self._ws = None
            await asyncio.sleep(wait_s)

    async def send(self, key: str) -> None:
        """Send a message to a room until it is acknowledged, under one clientMessageId."""
        room = random.choice(list(self.seqs))
        sent_at_s = time.monotonic()
        for attempt in itertools.count():
            await self.connected.wait()
            id_ = f"{key}#{attempt}"
            answer = self._unanswered[id_] = asyncio.get_running_loop().create_future()
            frame = {
                "type": "chat:send",
                "chatroomId": room,
                "message": f"order {key}",
                "clientMessageId": key,
                "id": id_,
            }
            try:
                if self._ws is not None:
                    await self._ws.send_json(frame)
                async with asyncio.timeout(RESEND_AFTER_S):
                    result = await answer
            except (TimeoutError, aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(RETRY_S)  # a closing socket fails at once, and its reader must run to notice
                continue
            finally:
                del self._unanswered[id_]
            if result["type"] == "chat:ack":
                self.acked[key] = (room, result["data"]["seq"])
                self.acks.append(AckTime(sent_at_s, time.monotonic()))
                return
            assert result["data"]["retryable"], result
            await asyncio.sleep(RETRY_S)

    def _places(self) -> list[dict[str, object]]:
        places: list[dict[str, object]] = [
            {"channel": "chatroom", "chatroomId": room, "since": max(seqs, default=0)}
            for room, seqs in self.seqs.items()
        ]
        if self.inbox is not None:
            places.append({"channel": "notifications", "since": max(self.inbox, default=0)})
        if self.symbols:
            places.append({"channel": "market", "symbols": list(self.symbols)})
        return places

    def _take_answer(self, data: Mapping[str, Any]) -> None:
        """Drop what a room or the inbox does not contain any more."""
        if data.get("recovered", True):
            return
        self.not_recovered += 1
        seqs = self.inbox if data["channel"] == "notifications" else self.seqs[data["chatroomId"]]
        if seqs is not None:
            seqs[:] = [seq for seq in seqs if seq <= data["seq"]]

    def _take_price(self, data: Mapping[str, Any]) -> None:
        seq = data["seq"]
        self.prices_back += seq < self._price_seqs.get(data["symbol"], 0)
        self._price_seqs[data["symbol"]] = seq
        self.priced_at_s.append(time.monotonic())

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> float:
        """Read until the end and return the server's requested reconnect delay in seconds."""
        waiting, wait_s = len(self._places()), RETRY_S
        async for message in ws:
            frame = message.json()
            match frame["type"]:
                case "subscribed":
                    self._take_answer(frame["data"])
                    waiting -= 1
                    if not waiting:
                        self._ws = ws
                        self.connected.set()
                case "chat:message":
                    self.seqs[frame["data"]["chatroomId"]].append(frame["data"]["seq"])
                case "notification:new" if self.inbox is not None:
                    self.inbox.append(frame["data"]["seq"])
                case "market:price":
                    self._take_price(frame["data"])
                case "server:drain":
                    wait_s = frame["data"]["reconnectAfterMs"] / 1000
                case "chat:ack" | "error":
                    answer = self._unanswered.get(frame.get("id", ""))
                    if answer is None:
                        if waiting:  # a subscription was refused for now
                            await ws.close()
                        continue
                    if not answer.done():
                        answer.set_result(frame)
        return wait_s
