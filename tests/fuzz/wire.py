"""Connections below the protocol: malformed WebSocket frames and HTTP requests. Source: RFC 6455."""

import asyncio
import base64
import json
import socket
import struct
from random import Random
from urllib.parse import urlsplit

from tests.fuzz.checks import GatewayMisbehaved, check_close, check_frame, check_response
from tests.fuzz.material import Material

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
ANSWER_TIMEOUT_S = 20.0
STEPS_MAX = 30
NORMAL_SIZES = (0, 1, 125, 126, 127, 65_535, 65_536, 70_000)


def client_frame(
    random: Random, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, masked: bool = True, width: int = 0
) -> bytes:
    """Return one frame; `width` 2 or 8 encodes the length in more bytes than necessary."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    size = len(payload)
    if size <= 125 and width == 0:
        head += bytes([bit | size])
    elif size <= 0xFFFF and width != 8:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = random.randbytes(4)
    return head + mask + bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))


class WireFuzzer:
    """One connection at a time, each malformed in a different way."""

    def __init__(self, material: Material, url: str, token: str) -> None:
        self._material = material
        self._random = material.random
        self._token = token
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self.sent = 0

    async def once(self) -> None:
        """Run one connection from start to end. Raises GatewayMisbehaved."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            if self._random.random() < 0.2:
                await self._bad_request(reader, writer)
            elif await self._upgrade(reader, writer):
                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(self._read(reader))
                    await self._write(writer)
                    if self._random.random() < 0.3:  # dropped without a close frame
                        raw = writer.get_extra_info("socket")
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        reading.cancel()
                    else:
                        writer.write(client_frame(self._random, CLOSE, struct.pack("!H", 1000)))
                        writer.write_eof()
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _upgrade(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        key = base64.b64encode(self._random.randbytes(16)).decode()
        writer.write(
            f"GET /v1/live HTTP/1.1\r\nHost: fuzz\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status not in (101, 429, 503):
            raise GatewayMisbehaved(f"a good upgrade was refused with {status}")
        return status == 101

    async def _bad_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        random = self._random
        lines = [
            random.choice(
                ["GET /v1/live HTTP/1.1", "POST /v1/live HTTP/1.1", "GET /v1/chatrooms HTTP/1.0", "GET * HTTP/1.1"]
            ),
            "Host: fuzz",
            "Connection: Upgrade",
            random.choice(["Upgrade: websocket", "Upgrade: h2c", "Upgrade: \x01"]),
            random.choice(["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 99", "Sec-WebSocket-Version: x"]),
            random.choice(["Sec-WebSocket-Key: short", f"Sec-WebSocket-Key: {'A' * 22}==", "X: " + "y" * 20_000]),
            random.choice(["Content-Length: 5", "Content-Length: -1", "Transfer-Encoding: chunked", "A: b"]),
        ]
        random.shuffle(lines)
        data = bytearray("\r\n".join(lines).encode() + b"\r\n\r\n")
        for _ in range(random.randrange(3)):
            data[random.randrange(len(data))] = random.randrange(256)
        writer.write(bytes(data) + self._material.bytes_(100))
        writer.write_eof()
        self.sent += 1
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            answer = await reader.read()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not answer:
            return
        status = int(head.split(b" ", 2)[1])
        if status != 101 and b"content-length" in head.lower() and b"HTTP/1.1 100" not in head:
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            check_response(status, body[:size], repr(bytes(data[:80])))

    # WebSocket --------------------------------------------------------------------------------------------------

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        if self._random.random() < 0.9:
            auth = json.dumps({"type": "auth", "token": self._token, "id": "auth"}).encode()
            writer.write(client_frame(self._random, TEXT, auth))
        for _ in range(self._random.randrange(STEPS_MAX)):
            for piece in self._step():
                self.sent += 1
                writer.write(piece)
                await writer.drain()
                if self._random.random() < 0.2:
                    await asyncio.sleep(0)

    def _step(self) -> list[bytes]:
        """Return the bytes of one step, usually valid ones, so that the server reads on."""
        random = self._random
        choice = random.random()
        text = self._material.text().encode(errors="surrogatepass")
        if choice < 0.45:
            return [client_frame(random, TEXT, text, width=random.choice([0, 0, 0, 2, 8]))]
        if choice < 0.65:
            return self._fragments(text)
        if choice < 0.75:
            return [client_frame(random, random.choice([PING, PONG]), self._material.bytes_(126))]
        if choice < 0.80:  # split anywhere into several segments
            whole = client_frame(random, TEXT, text)
            at = random.randrange(len(whole) + 1)
            return [whole[:at], whole[at:]]
        return [self._bad_frame(text)]

    def _fragments(self, text: bytes) -> list[bytes]:
        random = self._random
        cuts = sorted(random.randrange(len(text) + 1) for _ in range(random.randrange(1, 6)))
        parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        frames: list[bytes] = []
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            frames.append(client_frame(random, TEXT if number == 0 else 0, part, fin=is_last))
            if not is_last and random.random() < 0.3:
                frames.append(client_frame(random, PING, b"between"))
        return frames

    def _bad_frame(self, text: bytes) -> bytes:
        random = self._random
        any_opcode = random.randrange(16)
        match random.randrange(9):
            case 0:
                return client_frame(random, any_opcode, text, rsv=random.randrange(8))
            case 1:
                return client_frame(random, TEXT, text, masked=False)
            case 2:
                return client_frame(random, random.choice([PING, PONG, CLOSE]), b"x" * 126)
            case 3:
                return client_frame(random, PING, b"x", fin=False)
            case 4:
                return client_frame(
                    random, CLOSE, random.choice([b"", b"\x03", b"\x03\xe8\xff", b"\x00\x00", b"\x0f\xa0"])
                )
            case 5:
                return client_frame(
                    random, TEXT, random.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
                )
            case 6:
                return bytes([0x81, 0xFF]) + struct.pack("!Q", random.choice([2**63, 2**62, 2**32, 65_537]))
            case 7:
                return client_frame(random, random.choice([BINARY, 0]), b"z" * random.choice(NORMAL_SIZES))
            case _:
                return self._material.bytes_(500)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Read everything that the server sends until it ends. Raises GatewayMisbehaved."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while head := await reader.read(1):
                if head[0] not in (0x81, 0x88, 0x8A):
                    raise GatewayMisbehaved(f"a server frame begins with {head[0]:#x}")
                payload = await self._payload(reader)
                if head[0] == 0x81:
                    check_frame(payload.decode())
                elif head[0] == 0x88 and payload:
                    check_close(struct.unpack("!H", payload[:2])[0])

    async def _payload(self, reader: asyncio.StreamReader) -> bytes:
        size = (await reader.readexactly(1))[0]
        if size & 0x80:
            raise GatewayMisbehaved("a server frame is masked")
        if size == 126:
            size = struct.unpack("!H", await reader.readexactly(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", await reader.readexactly(8))[0]
        return await reader.readexactly(size)
