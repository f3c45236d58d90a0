"""Order, backpressure, fairness and the end of one connection, on a transport that records."""

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest

from gateway.fanout.wire import close_frame
from gateway.live import websocket
from gateway.live.frame_reader import Fragment, FrameReader, Opcode, PingFrame, PongFrame, ProtocolViolation
from gateway.live.session import Close
from gateway.live.socket import Socket
from gateway.live.websocket import ABNORMAL, FRAMES_PER_TURN, Received, WebSocket, Work
from tests.security.raw_socket import raw_frame
from tests.support.waiting import until


class RecordingTransport:
    """Records the bytes written and whether it reads."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_reading = True
        self.is_half_closed = self.is_closed = self.is_aborted = False

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def write_eof(self) -> None:
        self.is_half_closed = True

    def pause_reading(self) -> None:
        assert self.is_reading
        self.is_reading = False

    def resume_reading(self) -> None:
        assert not self.is_reading
        self.is_reading = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


class Connected:
    """A connection with its transport, its socket and its receiver. A text that begins with "wait" needs work."""

    def __init__(self) -> None:
        self.transport = RecordingTransport()
        self.link = WebSocket(cast(asyncio.Transport, self.transport), FrameReader(1000), self)
        self.received: list[object] = []
        self.fragments = 0
        self.codes: list[int] = []
        self.may_go_on = asyncio.Event()
        self.link.begin(cast(Socket, self), b"")

    def receive(self, socket: Socket, message: Received) -> Work | None:
        if isinstance(message, Fragment):
            self.fragments += 1
            return None
        self.received.append(message)
        return self._wait() if isinstance(message, str) and message.startswith("wait") else None

    async def _wait(self) -> None:
        await self.may_go_on.wait()

    def violated(self, socket: Socket, violation: ProtocolViolation) -> None:
        self.close(Close(violation.code, violation.reason))

    def ended(self, socket: Socket, code: int) -> None:
        self.codes.append(code)

    def spawn(self, work: Work) -> "asyncio.Task[None]":
        return asyncio.ensure_future(work)

    def close(self, close: Close) -> None:
        self.link.shut(close.code, close.reason)

    def arrive(self, *texts: str) -> None:
        self.link.data_received(b"".join(raw_frame(text.encode()) for text in texts))


@pytest.fixture
async def connection() -> Connected:
    return Connected()


@pytest.fixture
def short_close(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(websocket, "CLOSE_TIMEOUT_S", 0.01)
    yield


def close_of(code: int | None) -> bytes:
    return raw_frame(b"" if code is None else code.to_bytes(2, "big"), Opcode.CLOSE)


async def test_messages_are_processed_at_once(connection: Connected) -> None:
    connection.arrive("a", "b")
    connection.link.data_received(raw_frame(b"p", Opcode.PING) + raw_frame(b"q", Opcode.PONG))
    assert connection.received == ["a", "b", PingFrame(b"p"), PongFrame(b"q")]


async def test_bytes_of_the_upgrade_are_processed_first() -> None:
    connection = Connected()
    connection.link.begin(cast(Socket, connection), raw_frame(b"early"))
    connection.arrive("later")
    assert connection.received == ["early", "later"]


async def test_next_message_waits_for_the_work_of_the_last(connection: Connected) -> None:
    connection.arrive("wait", "behind")
    assert connection.transport.is_reading  # nothing has arrived since
    connection.arrive("last")
    assert not connection.transport.is_reading
    assert connection.received == ["wait"]
    connection.may_go_on.set()
    await until(lambda: connection.received == ["wait", "behind", "last"])
    assert connection.transport.is_reading


async def test_connection_with_many_frames_lets_others_run(connection: Connected) -> None:
    texts = [str(number) for number in range(3 * FRAMES_PER_TURN)]
    connection.arrive(*texts)
    assert len(connection.received) == FRAMES_PER_TURN
    assert not connection.transport.is_reading
    await asyncio.sleep(0)
    assert len(connection.received) == 2 * FRAMES_PER_TURN
    await until(lambda: connection.received == texts)
    await until(lambda: connection.transport.is_reading)


async def test_empty_fragments_count_as_frames(connection: Connected) -> None:
    begun = raw_frame(b"", fin=False) + raw_frame(b"", Opcode.CONTINUATION, fin=False) * 2 * FRAMES_PER_TURN
    connection.link.data_received(begun + raw_frame(b"end", Opcode.CONTINUATION))
    assert not connection.transport.is_reading
    await until(lambda: connection.received == ["end"])
    assert connection.fragments == 2 * FRAMES_PER_TURN + 1


@pytest.mark.parametrize("code", [1000, 1001, 4000])
async def test_close_of_the_client_is_answered_with_its_code(connection: Connected, code: int) -> None:
    connection.link.data_received(close_of(code) + raw_frame(b"after"))
    assert connection.transport.written == [close_frame(code)]
    assert connection.transport.is_closed
    connection.link.connection_lost(None)
    assert (connection.received, connection.codes) == ([], [code])


async def test_close_without_a_code_is_answered_without_one(connection: Connected) -> None:
    connection.link.data_received(close_of(None))
    assert connection.transport.written == [b"\x88\x00"]
    connection.link.connection_lost(None)
    assert connection.codes == [1005]


async def test_close_waits_for_the_clients_answer(connection: Connected) -> None:
    connection.link.shut(4401, "why")
    connection.link.shut(4403, "once only")
    assert connection.transport.written == [close_frame(4401, "why")]
    connection.arrive("discarded")
    assert not connection.transport.is_closed
    connection.link.data_received(close_of(1000))
    assert connection.transport.is_closed
    connection.link.connection_lost(None)
    assert (connection.received, connection.codes) == ([], [ABNORMAL])


@pytest.mark.usefixtures("short_close")
async def test_client_that_does_not_answer_the_close_is_aborted(connection: Connected) -> None:
    connection.link.shut(1012, "restarting")
    await until(lambda: connection.transport.is_aborted)


@pytest.mark.usefixtures("short_close")
async def test_client_that_does_not_read_the_answer_to_its_close_is_aborted(connection: Connected) -> None:
    connection.link.data_received(close_of(1000))
    await until(lambda: connection.transport.is_aborted)


async def test_answer_to_the_close_is_read_while_work_goes_on(connection: Connected) -> None:
    connection.arrive("wait", "discarded")
    connection.link.shut(4401, "revoked")
    connection.link.data_received(close_of(4401))
    await until(lambda: connection.transport.is_closed)
    connection.link.connection_lost(None)
    assert connection.codes == []  # the work still uses the socket
    connection.may_go_on.set()
    await until(lambda: connection.codes == [ABNORMAL])
    assert connection.received == ["wait"]


@pytest.mark.usefixtures("short_close")
async def test_violation_closes_our_direction_and_discards_the_rest(connection: Connected) -> None:
    connection.link.data_received(raw_frame(b"\xff") + raw_frame(b"discarded"))
    connection.arrive("discarded too")
    [sent] = connection.transport.written
    assert sent[2:4] == (1007).to_bytes(2, "big")
    assert connection.transport.is_half_closed
    assert connection.transport.is_reading
    assert connection.received == []
    await until(lambda: connection.transport.is_aborted)


async def test_violation_after_our_close_sends_no_second_close(connection: Connected) -> None:
    connection.link.shut(4400, "bad frames")
    connection.link.data_received(raw_frame(b"", 3))
    assert connection.transport.written == [close_frame(4400, "bad frames")]
    assert connection.transport.is_half_closed


async def test_messages_before_the_end_are_processed_after_the_work(connection: Connected) -> None:
    connection.arrive("wait", "sent before the end")
    connection.link.connection_lost(None)
    assert connection.codes == []
    connection.may_go_on.set()
    await until(lambda: connection.codes == [ABNORMAL])
    assert connection.received == ["wait", "sent before the end"]


async def test_messages_before_the_end_are_processed_in_turns(connection: Connected) -> None:
    connection.arrive(*map(str, range(2 * FRAMES_PER_TURN)))
    connection.transport.close()
    connection.link.connection_lost(None)
    await until(lambda: connection.codes == [ABNORMAL])
    assert len(connection.received) == 2 * FRAMES_PER_TURN


def test_close_frame_has_at_most_125_bytes() -> None:
    assert close_frame(1000, "é" * 100) == b"\x88\x7c\x03\xe8" + "é".encode() * 61
