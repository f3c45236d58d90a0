"""How a client of each server joins, and how its publisher wraps a message. Pure but for the client it writes to."""

from collections.abc import Mapping, Sequence

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


class Plain:
    """A server that sends messages as they are to everyone on a path: uWebSockets.js, ws, Nchan."""

    protocol: str | None = None

    def __init__(self, path: str) -> None:
        self.path = path

    def opened(self, client: BenchSocket) -> None:
        """Whoever is connected listens."""
        client.joined()

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Nothing comes before that."""

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """A message as its publisher sends it."""
        return client_frame(payload)


class SocketIo:
    """Engine.IO 4 over WebSocket alone, with the default namespace (https://socket.io/docs/v4/engine-io-protocol/)."""

    path = "/socket.io/?EIO=4&transport=websocket"
    protocol: str | None = None

    def opened(self, client: BenchSocket) -> None:
        """The server speaks first."""

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """Open, connect to the namespace, be connected."""
        if frame.payload.startswith(b"0"):
            client.send(b"40")
        elif frame.payload.startswith(b"40"):
            client.joined()

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """An event `pub` with the message as its argument."""
        return client_frame(b'42["pub",' + payload + b"]")


class Nats:
    """NATS over WebSocket: one subject (https://docs.nats.io/reference/reference-protocols/nats-protocol)."""

    path = "/"
    protocol: str | None = None

    def __init__(self, *, listens: bool = True) -> None:
        self._listens = listens

    def opened(self, client: BenchSocket) -> None:
        """Connect, subscribe, and ask for a sign that both were taken."""
        subscribe = b"SUB room 1\r\n" if self._listens else b""
        hello = b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\n' + subscribe + b"PING\r\n"
        client.write(client_frame(hello, BINARY))

    def take(self, client: BenchSocket, frame: BenchFrame) -> None:
        """INFO, then PONG."""
        if b"PONG" in frame.payload:
            client.joined()

    @staticmethod
    def wrap(payload: bytes) -> bytes:
        """A PUB."""
        return client_frame(b"PUB room %d\r\n%b\r\n" % (len(payload), payload), BINARY)


def chat_send(room_id: str, text: str, id: int) -> bytes:
    """A `chat:send`, whole, as it goes to the socket."""
    return client_frame(f'{{"type":"chat:send","id":{id},"chatroomId":"{room_id}","message":"{text}"}}'.encode())
