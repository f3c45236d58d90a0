"""Attacks after the upgrade: frames that are invalid, endless, or too many."""

import asyncio
import json
import zlib

import pytest

from gateway.live.session import FRAMES_PER_WINDOW_MAX
from tests.bench.wire import BINARY, CLOSE, PING, PONG, TEXT
from tests.security.conftest import Unaffected, Victim
from tests.security.raw_socket import DEFLATE, RawSocket, raw_frame, text_frame
from tests.support.services import gateway_alone
from tests.support.tokens import mint

CONTINUATION = 0
PING_FRAME = b'{"type":"ping"}'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        *((raw_frame(PING_FRAME, reserved=bits), 1002) for bits in (1, 2, 4, 7)),
        *((raw_frame(b"", opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        *((raw_frame(b"", opcode, fin=False), 1002) for opcode in (PING, PONG, CLOSE)),
        *((raw_frame(b"x" * 126, opcode), 1002) for opcode in (PING, PONG, CLOSE)),
        (raw_frame(PING_FRAME, CONTINUATION), 1002),
        (raw_frame(b"x", fin=False) + raw_frame(PING_FRAME), 1002),
        (raw_frame(b"x", fin=False) + raw_frame(PING_FRAME, fin=False), 1002),
        (raw_frame(b"x", CLOSE), 1002),
        (raw_frame((1005).to_bytes(2, "big"), CLOSE), 1002),
        (raw_frame((999).to_bytes(2, "big"), CLOSE), 1002),
        (raw_frame((1000).to_bytes(2, "big") + b"\xff", CLOSE), 1007),
        (raw_frame(b'{"type":"ping","x":"\xff"}'), 1007),
        (raw_frame(b'{"type":"ping","x":"\xed\xa0\x80"}'), 1007),
        (raw_frame(b"\xc3", fin=False) + raw_frame(b"(", CONTINUATION), 1007),
        (raw_frame(PING_FRAME, BINARY), 1003),
        (raw_frame(b"", BINARY), 1003),
        (raw_frame(b"", length=65_537), 1009),
        (raw_frame(b"", length=2**63 - 1), 1009),
        (raw_frame(b"x" * 40_000, fin=False) + raw_frame(b"x" * 40_000, CONTINUATION), 1009),
    ],
    ids=lambda value: value[:2].hex() if isinstance(value, bytes) else str(value),  # the mask is random
)
@pytest.mark.parametrize("is_in", [False, True], ids=["stranger", "user"])
async def test_protocol_violation_closes_with_its_code(system: Victim, data: bytes, code: int, is_in: bool) -> None:
    opening = RawSocket.as_user(system.url, "mallory") if is_in else RawSocket.upgraded(system.url)
    async with await opening as attacker:
        attacker.send(data)
        assert await attacker.close_code() == code


async def test_control_frames_between_fragments_are_answered(system: Victim) -> None:
    async with await RawSocket.upgraded(system.url) as client:
        for place, byte in enumerate(PING_FRAME[:-1]):
            opcode = CONTINUATION if place else TEXT
            client.send(raw_frame(bytes([byte]), opcode, fin=False) + raw_frame(b"between", PING))
        client.send(raw_frame(PING_FRAME[-1:], CONTINUATION))
        await client.next("pong")
        assert client.said.count(b"between") == len(PING_FRAME) - 1


async def test_fragments_are_bounded_by_the_message_size(system: Victim, unaffected: Unaffected) -> None:
    async with unaffected(), await RawSocket.as_user(system.url, "mallory") as attacker:
        attacker.send(raw_frame(b"x", fin=False))
        for _ in range(70):
            await attacker.send_all(raw_frame(b"x" * 20, CONTINUATION, fin=False) * 50)
        assert await attacker.close_code() == 1009


async def test_endless_empty_fragments_count_as_silence(system: Victim, unaffected: Unaffected) -> None:
    """They never complete a message, so the socket is closed as silent."""
    async with (
        unaffected(),
        gateway_alone(system.amqp_url, connection_timeout_s=1.0) as url,
        await RawSocket.as_user(url, "mallory") as attacker,
    ):
        attacker.send(raw_frame(b"", fin=False))

        async def on_and_on() -> None:
            while True:
                await attacker.send_all(raw_frame(b"", CONTINUATION, fin=False) * 100)
                await asyncio.sleep(0.1)

        sending = asyncio.create_task(on_and_on())
        assert await attacker.close_code() == 4408
        sending.cancel()


@pytest.mark.parametrize(
    "frame",
    [
        raw_frame(b"", PING),
        raw_frame(b"x" * 125, PING),
        raw_frame(b"", PONG),
        raw_frame(PING_FRAME),
        raw_frame(b"", CONTINUATION, fin=False),
    ],
    ids=["ping", "long ping", "pong", "ping frame", "fragment"],
)
@pytest.mark.parametrize("is_in", [False, True], ids=["stranger", "user"])
async def test_flood_closes_with_4429(system: Victim, unaffected: Unaffected, frame: bytes, is_in: bool) -> None:
    async with unaffected():
        opening = RawSocket.as_user(system.url, "mallory") if is_in else RawSocket.upgraded(system.url)
        async with await opening as attacker:
            ending = asyncio.create_task(attacker.close_code())
            if frame[0] == CONTINUATION:
                attacker.send(raw_frame(b"", fin=False))
            for _ in range(FRAMES_PER_WINDOW_MAX // 100 + 2):
                await attacker.send_all(frame * 100)
            assert await ending == 4429


async def test_flood_of_a_client_that_does_not_read_is_bounded(system: Victim, unaffected: Unaffected) -> None:
    async with unaffected(), await RawSocket.as_user(system.url, "mallory") as attacker:
        try:
            async with asyncio.timeout(2):
                for _ in range(1000):
                    await attacker.send_all(raw_frame(PING_FRAME) * 100)
        except TimeoutError:
            pass  # the gateway reads no more
        assert await attacker.close_code() in {4429, 4413, None}


@pytest.mark.parametrize("compression", [True, False])
async def test_compression_bomb_closes(system: Victim, unaffected: Unaffected, compression: bool) -> None:
    """Where compression is not negotiated, its bit is an error."""
    offer = f"Sec-WebSocket-Extensions: {DEFLATE}"
    async with (
        unaffected(),
        gateway_alone(system.amqp_url, compression=compression) as url,
        await RawSocket.as_user(url, "mallory", offer) as attacker,
        await RawSocket.as_user(url, "neighbour", offer) as neighbour,
    ):
        assert (b"permessage-deflate" in attacker.head) == compression
        squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = squeeze.compress(b" " * 50_000_000) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        assert len(bomb) < 65_536
        attacker.send(raw_frame(bomb[:-4], reserved=4))
        assert await attacker.close_code() == (1009 if compression else 1002)
        neighbour.send(raw_frame(PING_FRAME))
        await neighbour.next("pong")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        '{"a":' * 12_000,
        '{"type":"ping","x":' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"type":"ping","id":' + "9" * 65_000 + "}",
        '{"type":"subscribe","channel":"chatroom","chatroomId":"r","since":' + "1" * 5_000 + "}",
        '{"type":"subscribe","channel":"market","symbols":["A"],"maxRate":1e999999}',
        '{"type":"ping","id":1' + "0" * 400 + ".5}",
        '{"type":"ping","id":1e-99999999999}',
        '{"type":"chat:send","chatroomId":"r","message":"\\ud800"}',
        '{"type":"chat:send","chatroomId":"\\udfff","message":"x"}',
        '{"type":"' + "x" * 65_000 + '"}',
        '{"type":"ping",' + ",".join(f'"k{number}":1' for number in range(5_000)) + "}",
    ],
    ids=lambda text: text[:40],
)
async def test_odd_json_is_answered_and_the_socket_stays(system: Victim, unaffected: Unaffected, text: str) -> None:
    async with unaffected(), await RawSocket.as_user(system.url, "mallory") as attacker:
        attacker.send(raw_frame(text.encode()) + text_frame("ping", id="after"))
        while True:
            answer = await attacker.next("pong")
            if answer.get("id") == "after":
                break
        assert len(attacker.said) < 200_000


async def test_ten_bad_frames_close_with_4400(system: Victim) -> None:
    async with await RawSocket.as_user(system.url, "mallory") as attacker:
        attacker.send(raw_frame(b"[" * 60_000) * 10)
        assert await attacker.close_code() == 4400


async def test_socket_without_auth_closes_with_4408_despite_other_frames(system: Victim) -> None:
    async with gateway_alone(system.amqp_url, auth_timeout_s=0.5) as url, await RawSocket.upgraded(url) as stranger:

        async def ping_on() -> None:
            while True:
                await stranger.send_all(raw_frame(b"", PING) + raw_frame(PING_FRAME))
                await asyncio.sleep(0.1)

        pinging = asyncio.create_task(ping_on())
        assert await stranger.close_code() == 4408
        pinging.cancel()


async def test_silence_closes_with_4408(system: Victim) -> None:
    async with (
        gateway_alone(system.amqp_url, connection_timeout_s=0.5) as url,
        await RawSocket.as_user(url, "mallory") as silent,
    ):
        assert await silent.close_code() == 4408


async def test_rate_abuse_is_counted_over_the_sockets_of_a_user(system: Victim) -> None:
    async with (
        gateway_alone(system.amqp_url, rate_limit_messages_per_minute=2) as url,
        await RawSocket.as_user(url, "abuser") as first,
        await RawSocket.as_user(url, "abuser") as second,
    ):
        for number in range(11):
            for attacker in (first, second):
                attacker.send(text_frame("chat:send", chatroomId="room_unknown", message=str(number)))
        ending = [asyncio.create_task(attacker.close_code()) for attacker in (first, second)]
        done, others = await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result() for task in done} == {4429}
        for task in others:
            task.cancel()


async def test_connections_per_user_are_bounded(system: Victim) -> None:
    async with (
        gateway_alone(system.amqp_url, max_connections_per_user=2) as url,
        await RawSocket.as_user(url, "mallory"),
        await RawSocket.as_user(url, "mallory"),
        await RawSocket.upgraded(url) as third,
    ):
        third.send(text_frame("auth", token=mint("mallory")))
        assert await third.close_code() == 1013


async def test_subscriptions_and_symbols_are_bounded(system: Victim) -> None:
    async with (
        gateway_alone(system.amqp_url, max_subscriptions=2, max_symbols=2) as url,
        await RawSocket.as_user(url, "mallory") as attacker,
    ):
        for name in ("a", "b", "c"):
            attacker.send(text_frame("subscribe", channel="community", communityId=name))
        attacker.send(text_frame("subscribe", channel="market", symbols=["A", "B", "C"]))
        for _ in range(2):
            error = await attacker.next("error")
            assert error["data"]["code"] == "TOO_MANY_SUBSCRIPTIONS", json.dumps(error)


@pytest.mark.parametrize("first_bytes", [1, 2, 20])
@pytest.mark.parametrize("masked", [True, False])
async def test_unmasked_client_is_closed_with_1002(system: Victim, masked: bool, first_bytes: int) -> None:
    """However its first frame is split in transit (RFC 6455, 5.1)."""
    async with await RawSocket.upgraded(system.url) as client:
        data = raw_frame(PING_FRAME, masked=masked)
        await client.send_all(data[:first_bytes])
        await asyncio.sleep(0.05)
        client.send(data[first_bytes:])
        if masked:
            await client.next("pong")
        else:
            assert await client.close_code() == 1002
