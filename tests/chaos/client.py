"""A client that follows the protocol: reconnects, resumes with `since`, and resends messages without an ack.

One `ChaosClient` is one device of a user and lives through any number of connections. It sends a message without a
`clientMessageId` only once, whatever the answer. It records all frames in order, sent and received. It neither reorders
nor deduplicates: checking is the ledger's job.
"""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import orjson

from shared.ids import direct_room_id
from tests.chaos.ledger import Ledger, LedgerItem
from tests.support.tokens import mint

CONNECT_TIMEOUT_S = 4.0
PING_INTERVAL_S = 2.5
SILENCE_MAX_S = 8.0
RESEND_AFTER_S = 12.0  # without an answer; longer than the TTL of a command and one database call
RETRY_AFTER_S = 0.5  # after a retryable refusal
SLOW_PAUSE_S = 0.4
SMALL_BUFFER_BYTES = 4096  # so that the server notices a client that does not read
EXPECTED_CLOSES = (None, 1000, 1001, 1006, 1012, 1013, 4408, 4413)
COMMUNITY = "chaos"

Frame = dict[str, Any]
Clock = Callable[[], float]


class ChaosClient:
    """One device of a user. `run` is its task.

    `pause` closes the device, `resume` opens it again; `cut`, `stick` and `slow` harm it.
    """

    def __init__(
        self,
        name: str,
        user_id: str,
        url: str,
        ledger: Ledger,
        clock: Clock,
        rooms: Sequence[str] = (),
        symbols: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.user_id = user_id
        self.rooms = list(rooms)
        self.symbols = list(symbols)
        self.resent = 0
        self.closes: Counter[str] = Counter()
        self.ack_times: list[tuple[float, float]] = []  # first sent, acknowledged
        self.prices: dict[str, float] = {}  # latest by symbol
        self.unacked: dict[str, Frame] = {}  # by key
        self._url = url
        self._ledger = ledger
        self._clock = clock
        self._seqs: dict[str, int] = {}  # by channel: last contiguous seq
        self._due: dict[str, float] = {}  # by key: time of the next resend
        self._sent_s: dict[str, float] = {}  # by key: time of the first send
        self._wants = asyncio.Event()
        self._wants.set()
        self._connections = 0
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._socket: socket.socket | None = None
        self._pending: dict[str, float] = {}  # channels not subscribed yet: time of the next attempt
        self._unanswered: set[str] = set()  # those of them whose latest attempt has no answer
        self._price_seqs: dict[str, int] = {}
        self._posts: set[str] = set()
        self._once: set[str] = set()  # keys of messages without an id that this connection has not answered
        self._heard_s = 0.0
        self._stuck_until_s = 0.0
        self._slow_until_s = 0.0
        self._drain_s: float | None = None

    # Interface of the harness ---------------------------------------------------------------------------------------

    @property
    def is_online(self) -> bool:
        """Return whether the device is meant to be connected."""
        return self._wants.is_set()

    @property
    def is_ready(self) -> bool:
        """Return whether all subscriptions of the current connection are answered."""
        return self._ws is not None and not self._pending

    @property
    def waiting(self) -> int:
        """Return the number of messages that wait for an answer."""
        return len(self.unacked) + len(self._once)

    @property
    def channels(self) -> list[str]:
        """Return the ordered channels that it subscribes to."""
        return [*(f"room:{room}" for room in self.rooms), f"inbox:{self.user_id}"]

    def position(self, channel: str) -> int:
        """Return the last contiguous seq of a channel."""
        return self._seqs.get(channel, 0)

    async def send(self, key: str, room_id: str, text: str) -> None:
        """Send a message and resend it until it is acknowledged."""
        await self._begin(key, f"room:{room_id}", {"type": "chat:send", "chatroomId": room_id, "message": text})

    async def send_direct(self, key: str, user_id: str, text: str) -> None:
        """Send a direct message and resend it until it is acknowledged."""
        channel = f"room:{direct_room_id(self.user_id, user_id)}"
        await self._begin(key, channel, {"type": "chat:direct", "userId": user_id, "message": text})

    async def send_once(self, key: str, room_id: str) -> None:
        """Send a message without a `clientMessageId`; its text is its key. Does nothing without a connection."""
        if self._ws is None or self._ws.closed:
            return
        channel = f"room:{room_id}"
        self._once.add(key)
        self._ledger.note_sent(key, self.name, [channel], self._clock())
        frame = {"type": "chat:send", "chatroomId": room_id, "message": key, "id": f"{channel} {key}"}
        await self._write_message(key, frame)

    def pause(self) -> None:
        """Close the device as its user would."""
        self._wants.clear()
        self.cut()

    def resume(self) -> None:
        """Open the device again."""
        self._wants.set()

    def cut(self) -> None:
        """Drop the connection without a close frame."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def stick(self, for_s: float) -> None:
        """Stop reading and sending."""
        self._stuck_until_s = self._clock() + for_s

    def slow(self, for_s: float) -> None:
        """Read a frame only occasionally."""
        self._slow_until_s = self._clock() + for_s

    # Connections ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stay connected whenever the device is open, until cancelled."""
        while True:
            await self._wants.wait()
            self._drain_s = None
            try:
                await self._connect()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.closes[type(error).__name__] += 1
            finally:
                self._ws = self._socket = None
            await asyncio.sleep(random.uniform(0.05, 0.5) if self._drain_s is None else self._drain_s)

    async def _connect(self) -> None:
        connector = aiohttp.TCPConnector(socket_factory=self._make_socket, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                ws = await http.ws_connect(f"{self._url}/v1/live", max_msg_size=0, timeout=_CLOSE_TIMEOUT)
            self._forget_connection()
            subscriptions = list(self._subscriptions().values())
            auth = {"type": "auth", "token": mint(self.user_id), "subscriptions": subscriptions}
            await ws.send_str(orjson.dumps(auth).decode())
            self._ws = ws
            tending = asyncio.create_task(self._tend())
            try:
                await self._read(ws)
            finally:
                tending.cancel()
                await asyncio.gather(tending, return_exceptions=True)
                self.closes[str(ws.close_code)] += 1
                if not self._is_expected(ws.close_code):
                    self._ledger.note_failure(f"closed with {ws.close_code}", listener=self.name)

    def _is_expected(self, close_code: int | None) -> bool:
        return close_code in EXPECTED_CLOSES

    def _make_socket(self, address: Any) -> socket.socket:
        made = socket.socket(address[0], address[1], address[2])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        made.setblocking(False)
        self._socket = made
        return made

    def _forget_connection(self) -> None:
        now_s = self._clock()
        self._connections += 1
        self._pending = dict.fromkeys(self._subscriptions(), now_s + RESEND_AFTER_S)
        self._unanswered = set(self._pending)
        self._due = dict.fromkeys(self.unacked, now_s)
        self._price_seqs.clear()
        self._posts.clear()
        self._once.clear()
        self._heard_s = now_s

    def _subscriptions(self) -> dict[str, Frame]:
        """Return the subscribe frames by channel, with `since` for known channels."""
        wanted: dict[str, Frame] = {f"room:{room}": {"channel": "chatroom", "chatroomId": room} for room in self.rooms}
        wanted[f"inbox:{self.user_id}"] = {"channel": "notifications"}
        wanted["market"] = {"channel": "market", "symbols": self.symbols}
        wanted["community"] = {"channel": "community", "communityId": COMMUNITY}
        if not self.symbols:
            del wanted["market"]
        for channel, frame in wanted.items():
            frame |= {"type": "subscribe", "id": channel}
            if channel in self._seqs:
                frame["since"] = self._seqs[channel]
        return wanted

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while (message := await ws.receive()).type is aiohttp.WSMsgType.TEXT:
            now_s = self._clock()
            self._heard_s = now_s
            self._take(orjson.loads(message.data), now_s)
            if now_s < self._stuck_until_s:
                await asyncio.sleep(self._stuck_until_s - now_s)
                self._heard_s = self._clock()
            elif now_s < self._slow_until_s:
                await asyncio.sleep(SLOW_PAUSE_S)

    async def _tend(self) -> None:
        """Ping, resend due messages, and give up a silent connection."""
        pinged_s = self._clock()
        while True:
            now_s = self._clock()
            if now_s >= max(self._stuck_until_s, self._slow_until_s):
                if now_s - self._heard_s > SILENCE_MAX_S:
                    self.closes["silent"] += 1
                    self.cut()
                    return
                if now_s - pinged_s > PING_INTERVAL_S:
                    pinged_s = now_s
                    await self._write({"type": "ping"})
                await self._send_due(now_s)
            await asyncio.sleep(0.1)

    # Out ------------------------------------------------------------------------------------------------------------

    async def _begin(self, key: str, channel: str, frame: Frame) -> None:
        now_s = self._sent_s[key] = self._clock()
        self.unacked[key] = frame | {"clientMessageId": key, "id": f"{channel} {key}"}
        self._due[key] = now_s + RESEND_AFTER_S
        self._ledger.note_sent(key, self.name, [channel], now_s)
        await self._write_message(key, self.unacked[key])

    async def _send_due(self, now_s: float) -> None:
        for key in [key for key, due_s in self._due.items() if due_s <= now_s]:
            self._due[key] = now_s + RESEND_AFTER_S
            self.resent += 1
            self._ledger.note_sent(key, self.name, [self.unacked[key]["id"].split(" ")[0]], now_s)
            await self._write_message(key, self.unacked[key])
        for channel in [channel for channel, due_s in self._pending.items() if due_s <= now_s]:
            if channel in self._unanswered:  # asking twice on one connection would replay the missed items twice
                self.closes["unanswered"] += 1
                self.cut()
                return
            self._pending[channel] = now_s + RESEND_AFTER_S
            self._unanswered.add(channel)
            await self._write(self._subscriptions()[channel])

    async def _write_message(self, key: str, frame: Frame) -> None:
        """Write a message to the connection, if any, and record its place there."""
        if self._ws is not None and not self._ws.closed:
            self._ledger.note_written(key, self.name, self._connections)
            await self._write(frame)

    async def _write(self, frame: Frame) -> None:
        if self._ws is not None and not self._ws.closed:
            with suppress(aiohttp.ClientError, OSError):
                await self._ws.send_str(orjson.dumps(frame).decode())

    # In -------------------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame, now_s: float) -> None:
        data = frame["data"]
        match frame["type"]:
            case "chat:message":
                item = LedgerItem(data["seq"], data["messageId"], key_of_message(data))
                self._delivered(f"room:{data['chatroomId']}", item, now_s)
            case "notification:new":
                item = LedgerItem(data["seq"], data["id"], key_of_notification(data))
                self._delivered(f"inbox:{self.user_id}", item, now_s)
            case "chat:ack":
                self._acked(frame["id"], data, now_s)
            case "subscribed":
                self._subscribed(frame["id"], data, now_s)
            case "error":
                self._refused(frame.get("id", ""), data, now_s)
            case "market:price":
                self._priced(data)
            case "post:created":
                if data["postId"] in self._posts:
                    self._ledger.note_failure(f"post {data['postId']} came twice", listener=self.name)
                self._posts.add(data["postId"])
            case "server:drain":
                self._drain_s = data["reconnectAfterMs"] / 1000

    def _delivered(self, channel: str, item: LedgerItem, now_s: float) -> None:
        self._ledger.note_delivered(self.name, channel, item, now_s, self._connections)
        self._seqs[channel] = max(self._seqs.get(channel, 0), item.seq)

    def _acked(self, id_: str, data: Frame, now_s: float) -> None:
        key = data["clientMessageId"] or id_.partition(" ")[2]
        item = LedgerItem(data["seq"], data["messageId"], key)
        self._ledger.note_acked(key, f"room:{data['chatroomId']}", now_s, item)
        self._once.discard(key)
        if self.unacked.pop(key, None) is not None:
            del self._due[key]
            self.ack_times.append((self._sent_s.pop(key), now_s))

    def _subscribed(self, channel: str, data: Frame, now_s: float) -> None:
        self._pending.pop(channel, None)
        self._unanswered.discard(channel)
        if data.get("unknown"):  # symbols without a first tick
            self._pending[channel] = now_s + RETRY_AFTER_S
        if "seq" not in data:
            return
        if channel not in self._seqs:
            self._seqs[channel] = data["seq"]
            self._ledger.note_listening(self.name, channel, data["seq"])
        elif not data["recovered"]:
            self._ledger.note_failure("not recovered", channel=channel, listener=self.name, seq=data["seq"])

    def _refused(self, id_: str, data: Frame, now_s: float) -> None:
        channel, _, key = id_.partition(" ")
        if not data["retryable"]:
            self._ledger.note_failure(f"refused: {data}", channel=channel, listener=self.name)
        self._once.discard(key)
        self._unanswered.discard(id_)
        if key in self._due:
            self._due[key] = now_s + RETRY_AFTER_S
        elif channel in self._pending:
            self._pending[channel] = now_s + RETRY_AFTER_S

    def _priced(self, data: Frame) -> None:
        symbol, seq = data["symbol"], data["seq"]
        if seq < self._price_seqs.get(symbol, 0):
            self._ledger.note_failure(
                f"an older price of {symbol} came behind a newer one", listener=self.name, seq=seq
            )
        self._price_seqs[symbol] = seq
        self.prices[symbol] = data["price"]


_CLOSE_TIMEOUT = aiohttp.ClientWSTimeout(ws_close=1.0)


def key_of_message(data: Frame) -> str:
    """Return the key of a message: its `clientMessageId`, otherwise its text."""
    return str(data.get("clientMessageId") or data["message"])


def key_of_alert(symbol: str, price: float) -> str:
    """Return the key of an alert, of which a run sets one at each price of a symbol."""
    return f"{symbol}@{price:.0f}"


def key_of_notification(data: Frame) -> str:
    """Return the key of a notification: its alert's, otherwise its title."""
    alert = data.get("alert")
    return str(data["title"]) if alert is None else key_of_alert(alert["symbol"], alert["price"])
