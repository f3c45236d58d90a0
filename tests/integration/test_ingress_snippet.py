"""The ingress's part of HAProxy's configuration, in a backend section as its controller writes it."""

import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest

from deploy.local.command import CommandLine
from tests.support import manifests
from tests.support.balancer import HAPROXY, START_TIMEOUT_S, needs_haproxy
from tests.support.server_process import ServerProcess
from tests.support.services import free_port

pytestmark = needs_haproxy
TIMEOUT_S = 10.0
# What the controller writes for `forwarded-for`, `load-balance` and the snippet.
CONFIGURATION = """
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s

frontend clients
    bind 127.0.0.1:{port}
    use_backend gateways

backend gateways
    balance leastconn
    option forwardfor
    {snippet}
    server gateway 127.0.0.1:{gateway_port}
"""


class HeaderRecorder(BaseHTTPRequestHandler):
    """A gateway that records the headers of its requests."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay silent."""


@pytest.fixture
def gateway() -> Iterator[tuple[ThreadingHTTPServer, list[dict[str, str]]]]:
    """Yield a server and the headers that it received."""
    seen: list[dict[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Recording", (HeaderRecorder,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server, seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ingress(gateway: tuple[ThreadingHTTPServer, list[dict[str, str]]], tmp_path: Path) -> Iterator[str]:
    """Yield the URL of HAProxy with the snippet of the production overlay."""
    (resource,) = manifests.of_kind("prod", "Ingress").values()
    snippet = resource["metadata"]["annotations"]["haproxy.org/backend-config-snippet"]
    port = free_port()
    text = CONFIGURATION.format(
        port=port, snippet="\n    ".join(snippet.splitlines()), gateway_port=gateway[0].server_port
    )
    (tmp_path / "haproxy.cfg").write_text(text)
    command = CommandLine((HAPROXY or "haproxy", "-db", "-f", str(tmp_path / "haproxy.cfg")), {}, tmp_path)
    process = ServerProcess(command, tmp_path / "haproxy.out")
    url = f"http://127.0.0.1:{port}/"
    process.start()
    try:
        process.wait_until(lambda: accepts(url), START_TIMEOUT_S)
        yield url
    finally:
        process.kill()


def accepts(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


def test_client_cannot_choose_its_address(
    ingress: str, gateway: tuple[ThreadingHTTPServer, list[dict[str, str]]]
) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    with urllib.request.urlopen(urllib.request.Request(ingress, headers=forged), timeout=TIMEOUT_S):
        pass
    assert gateway[1][-1]["x-forwarded-for"] == "127.0.0.1"
    assert "forwarded" not in gateway[1][-1]


def test_error_of_ingress_is_in_the_envelope(
    ingress: str, gateway: tuple[ThreadingHTTPServer, list[dict[str, str]]]
) -> None:
    gateway[0].shutdown()
    gateway[0].server_close()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    for headers in ({}, upgrade):
        with pytest.raises(HTTPError) as raised:
            urllib.request.urlopen(urllib.request.Request(ingress, headers=headers), timeout=TIMEOUT_S)
        with raised.value as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert b'"code":"UNAVAILABLE"' in answer.read()
