"""How a client of each server subscribes and its publisher wraps a message. Pure except for writes to the client."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

import orjson

from tests.bench.client import BenchSocket
from tests.bench.wire import BINARY, BenchFrame, client_frame
from tests.support.tokens import SECRET, mint

TOKEN_TTL_S = 86_400.0


class Realtime:
    """This project's gateway: authenticate and subscribe in one frame, then wait for every answer."""

    path = "/v1/live"
    protocol: str | None = None

    def __init__(
        self, user_id: str, subscriptions: Sequence[Mapping[str, object]], claims: Mapping[str, object] | None = None
    ) -> None:
        self.user_id = user_id
        self.subscriptions = subscriptions
        self.answers: list[bytes] = []
        self._token = mint(user_id, secret=SECRET, ttl_s=TOKEN_TTL_S, **(claims or {}))
        self._waiting = 1 + len(subscriptions)

    def first_seqs(self) -> dict[str, int]:
        """Return the last seq of each room when the socket joined it."""
        frames = (orjson.loads(answer) for answer in self.answers)
        rooms = (frame["data"] for frame in frames if frame["type"] == "subscribed" and "chatroomId" in frame["data"])
        return {room["chatroomId"]: room["seq"] for room in rooms}

    def opened(self, client: BenchSocket) -> None:
        """Authenticate and subscribe."""
        auth = {"type": "auth", "token": self._token, "subscriptions": list(self.subscriptions)}
        client.send(orjson.dumps(auth))

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Count the answers."""
        if frame.payload.startswith((b'{"type":"auth:ok"', b'{"type":"subscribed"')):
            self.answers.append(frame.payload)
            self._waiting -= 1
            if not self._waiting:
                client.joined()
        elif frame.payload.startswith(b'{"type":"error"') and not client.ready.done():
            client.ready.set_exception(ConnectionError(frame.payload[:300].decode(errors="replace")))


class ChatPeer:
    """The chat server of peers/quiet.js: the token and the rooms are in the URL."""

    protocol: str | None = None

    def __init__(self, user_id: str, rooms: Sequence[str]) -> None:
        self.user_id = user_id
        token = mint(user_id, secret=SECRET, ttl_s=TOKEN_TTL_S)
        self.path = f"/?{urlencode([('token', token), *(('room', room) for room in rooms)])}"

    def first_seqs(self) -> dict[str, int]:
        """Return nothing: every run uses new rooms."""
        return {}

    def opened(self, client: BenchSocket) -> None:
        """Wait for the greeting."""

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Join at the greeting."""
        if frame.payload.startswith(b'{"type":"auth:ok"'):
            client.joined()


class Plain:
    """A server that forwards messages unchanged to every client of a path: uWebSockets.js, ws, Nchan."""

    protocol: str | None = None

    def __init__(self, path: str) -> None:
        self.path = path

    def opened(self, client: BenchSocket) -> None:
        """Join at once: a connected client is subscribed."""
        client.joined()

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Ignore frames before the join; there are none."""

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """Return a message as its publisher sends it."""
        return client_frame(payload)


class SocketIo:
    """Engine.IO 4 over WebSocket alone, with the default namespace (https://socket.io/docs/v4/engine-io-protocol/)."""

    path = "/socket.io/?EIO=4&transport=websocket"
    protocol: str | None = None

    def opened(self, client: BenchSocket) -> None:
        """Do nothing: the server speaks first."""

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Handle open, connect to the namespace, join."""
        if frame.payload.startswith(b"0"):
            client.send(b"40")
        elif frame.payload.startswith(b"40"):
            client.joined()

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """Return an event `pub` with the message as its argument."""
        return client_frame(b'42["pub",' + payload + b"]")


class Nats:
    """NATS over WebSocket: one subject (https://docs.nats.io/reference/reference-protocols/nats-protocol)."""

    path = "/"
    protocol: str | None = None

    def __init__(self, *, listens: bool = True) -> None:
        self._listens = listens

    def opened(self, client: BenchSocket) -> None:
        """Connect, subscribe, and request a PONG."""
        subscribe = b"SUB room 1\r\n" if self._listens else b""
        hello = b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\n' + subscribe + b"PING\r\n"
        client.write(client_frame(hello, BINARY))

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Handle INFO, then PONG."""
        if b"PONG" in frame.payload:
            client.joined()

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """Return a PUB."""
        return client_frame(b"PUB room %d\r\n%b\r\n" % (len(payload), payload), BINARY)


def chat_send(room_id: str, text: str, id: int) -> bytes:
    """Return a complete `chat:send` frame as bytes for the socket."""
    return client_frame(f'{{"type":"chat:send","id":{id},"chatroomId":"{room_id}","message":"{text}"}}'.encode())
