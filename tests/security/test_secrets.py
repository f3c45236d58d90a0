"""No secret in the output of a gateway, for any input of clients and operators. Real processes, all logs on."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

from deploy.local.command import CommandLine
from deploy.local.settings import PROJECT
from tests.security.conftest import Victim
from tests.security.raw_socket import RawSocket, text_frame
from tests.support.server_process import ServerProcess
from tests.support.services import free_port, wait_ready
from tests.support.tokens import SECRET, mint

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LOG_LEVEL": "debug", "PYTHONUNBUFFERED": "1"}


async def test_logs_hold_no_token_and_no_secret(system: Victim, tmp_path: Path) -> None:
    port, admin_port = free_port(), free_port()
    environment = {
        **ENVIRONMENT,
        "AMQP_URL": system.amqp_url,
        "JWT_SECRET": SECRET,
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "ADMIN_PORT": str(admin_port),
    }
    output = tmp_path / "gateway.out"
    process = ServerProcess(CommandLine((sys.executable, "-m", "gateway"), environment, PROJECT), output)
    process.start()
    try:
        await wait_ready(admin_port)
        tokens = await use_tokens(f"http://127.0.0.1:{port}")
    finally:
        process.stop(30)
    written = output.read_text(errors="replace")
    assert "gateway_listening" in written
    assert "http_malformed" in written  # malformed requests are logged without their bytes
    for secret in (SECRET, *tokens, *(part for token in tokens for part in token.split(".")[1:])):
        assert secret not in written


async def use_tokens(url: str) -> list[str]:
    """Send valid and invalid tokens in right and wrong places, and return them. No answer repeats one."""
    good, expired, forged = (
        mint("alice"),
        mint("alice", ttl_s=-5),
        mint("alice", secret="another secret, of the same good length"),
    )
    for token in (good, expired, forged):
        protocols = f"Sec-WebSocket-Protocol: access_token, {token}"
        async with await RawSocket.upgraded(url, f"X-Token: {token}\r\n{protocols}") as socket:
            socket.send(text_frame("auth", token=token) + text_frame("chat:send", token=token) + b"\xff" * 10)
            await socket.close_code()
            assert token.encode() not in socket.said
        async with await RawSocket.connect(url) as broken:
            broken.send(f"GET /v1/live?token={token} HTTP/9.9\r\nAuthorization Bearer {token}\r\n\r\n".encode())
            assert token.encode() not in await broken.rest()
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            for path in (f"/v1/chatrooms?token={token}", f"/v1/{token}", "/v1/chatrooms/room_1"):
                async with http.get(url + path) as response:
                    assert token not in await response.text()
    return [good, expired, forged]


async def start_with(**environment: str) -> tuple[int, str]:
    """Start a gateway with invalid settings; return its exit code and output."""
    made: subprocess.CompletedProcess[bytes] = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gateway"],
        env={**ENVIRONMENT, **environment},
        cwd=PROJECT,
        capture_output=True,
        timeout=60,
    )
    return made.returncode, (made.stdout + made.stderr).decode()


async def test_invalid_setting_is_named_without_its_secret(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    wrong: dict[str, Any] = {
        "AMQP_URL": "http://user:hidden-password@broker/",
        "JWT_SECRET": "hidden-secret",
        "JWT_JWKS_URL": "http://user:hidden-password@id.example/keys",
        "TRUSTED_PROXIES": "everybody",
        "MAX_CONNECTIONS_PER_IP": "-1",
    }
    code, said = await start_with(**wrong)
    assert code == 2
    for name in wrong:
        assert f"wrong setting: {name}" in said
    assert "hidden" not in said
    code, said = await start_with(AMQP_URL="amqp://broker/", JWT_PUBLIC_KEY_FILE=str(key))
    assert (code, "wrong setting: JWT_PUBLIC_KEY_FILE" in said, "c2VjcmV0" in said) == (2, True, False)
