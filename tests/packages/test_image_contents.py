"""Every service starts from the content of the image: the pinned packages, the copied files, its own variables."""

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from deploy.local.settings import PROJECT
from tests.support import dockerfile
from tests.support.fresh_python import FreshPython
from tests.support.infrastructure import Infrastructure
from tests.support.services import free_port
from tests.support.settings_names import SETTINGS
from tests.support.tokens import SECRET

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The image's Python and its working directory."""
    root = tmp_path_factory.mktemp("image")
    environment = FreshPython(root / "venv")
    constraints = PROJECT / "deploy" / "container" / "constraints.txt"
    environment.install("--no-deps", "--only-binary", ":all:", "-r", str(constraints))
    return environment.python, dockerfile.lay_out(root)


@contextmanager
def process(command: list[str], tree: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a service; it ends with the block."""
    with (tree.parent / f"{command[-1]}.log").open("wb") as log:
        running = subprocess.Popen(command, cwd=tree, env=environment, stdout=log, stderr=log)
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def ready(port: int, running: "subprocess.Popen[bytes]") -> bool:
    """Return whether `/readyz` answers 200 within the deadline, while the process runs."""
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline_s and running.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)  # poll interval of a condition with a deadline
    return False


def settings_of(service: str, infrastructure: Infrastructure) -> dict[str, str]:
    """The variables of one service of the image."""
    return {
        **dockerfile.environment(),
        "ADMIN_PORT": str(free_port()),
        "AMQP_URL": infrastructure.amqp_url,
        "MONGODB_URI": infrastructure.mongodb_uri,
        "MONGODB_DATABASE": "image",
        "JWT_SECRET": SECRET,
        "GATEWAY_PORT": str(free_port()),
    }


def test_services_get_ready_and_stop_in_order(image: tuple[Path, Path], infrastructure: Infrastructure) -> None:
    python, tree = image
    settings = {service: settings_of(service, infrastructure) for service in SETTINGS}
    with ExitStack() as stack:
        processes = {
            service: stack.enter_context(process([str(python), "-m", service], tree, settings[service]))
            for service in SETTINGS
        }
        for service, running in processes.items():
            assert ready(int(settings[service]["ADMIN_PORT"]), running), log_of(tree, service)
        for running in processes.values():
            running.terminate()
        for service, running in processes.items():
            assert running.wait(STOP_TIMEOUT_S) == 0, log_of(tree, service)
    assert not list(tree.rglob("__pycache__"))


def log_of(tree: Path, service: str) -> str:
    """The end of a service's output."""
    return (tree.parent / f"{service}.log").read_text()[-4000:]
