"""Images are pinned to the newest release of their line, by a registry that speaks the distribution API."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.tools import renew_images
from deploy.tools.renew_images import ImageRegistry, RegistryUnavailable

DIGEST = "sha256:" + "a" * 64
TAGS = {
    "library/rabbitmq": ["4.2.5", "4.2.10", "4.2.9-alpine", "4.3.0", "4.2.11-rc.1", "latest"],
    "prom/prometheus": ["v3.5.0", "v3.5.1", "v3.6.0"],
}


class FakeRegistry(BaseHTTPRequestHandler):
    """Serves TAGS to clients with a token; tags come on two pages."""

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self._answer({"token": "anonymous"})
        elif self.headers.get("Authorization") != "Bearer anonymous":
            port = self.connection.getsockname()[1]
            realm = f'Bearer realm="http://127.0.0.1:{port}/token",service="registry"'
            self._answer({}, 401, {"WWW-Authenticate": realm})
        elif found := re.fullmatch(r"/v2/(.+)/tags/list\?n=1000(&last=1)?", self.path):
            tags = TAGS[found[1]]
            first = {"Link": f'</v2/{found[1]}/tags/list?n=1000&last=1>; rel="next"'}
            self._answer({"tags": tags[1:]} if found[2] else {"tags": tags[:1]}, 200, {} if found[2] else first)
        else:
            self._answer({}, 200, {"Docker-Content-Digest": DIGEST})

    def _answer(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def registry() -> Iterator[ImageRegistry]:
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeRegistry) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield ImageRegistry(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()


def test_images_move_within_their_line(registry: ImageRegistry, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# rabbitmq:4.2.5 stays in a comment\nA_IMAGE=rabbitmq:4.2.5\nB_IMAGE=prom/prometheus:v3.5.0\n")
    renew_images.renew([file], registry)
    assert file.read_text() == (
        "# rabbitmq:4.2.5 stays in a comment\n"
        f"A_IMAGE=rabbitmq:4.2.10@{DIGEST}\nB_IMAGE=prom/prometheus:v3.5.1@{DIGEST}\n"
    )
    once = file.read_text()
    renew_images.renew([file], registry)
    assert file.read_text() == once


def test_nothing_changes_without_a_registry(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A_IMAGE=rabbitmq:4.2.5\n")
    with pytest.raises(RegistryUnavailable):
        renew_images.renew([file], ImageRegistry("http://127.0.0.1:1"))
    assert file.read_text() == "A_IMAGE=rabbitmq:4.2.5\n"


def test_every_pinned_image_is_found() -> None:
    found: list[str] = []

    def note(image: renew_images.Image) -> str:
        found.append(image.repository)
        return image.tag

    for file in renew_images.FILES:
        renew_images.renewed(file.read_text(), note)
    assert sorted(set(found)) == [
        "grafana/grafana",
        "library/haproxy",
        "library/mongo",
        "library/python",
        "library/rabbitmq",
        "prom/prometheus",
    ]


def test_compose_and_kubernetes_run_the_same_versions() -> None:
    versions: dict[str, set[str]] = {}

    def note(image: renew_images.Image) -> str:
        number = re.match(r"[\d.]+", image.tag.removeprefix("v"))
        assert number is not None
        versions.setdefault(image.repository, set()).add(number[0])
        return image.tag

    for file in renew_images.FILES:
        renew_images.renewed(file.read_text(), note)
    operated = re.search(r"^  version: (.+)$", (renew_images.OVERLAYS / "prod" / "mongodb.yaml").read_text(), re.M)
    assert operated is not None  # its operator takes a version in place of an image
    versions["library/mongo"].add(operated[1])
    assert {name: len(found) for name, found in versions.items()} == dict.fromkeys(versions, 1)
