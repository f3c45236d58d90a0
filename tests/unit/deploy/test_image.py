"""The image's recipe without Docker: the copied files run, and the installed versions are the tested ones."""

import asyncio
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import pytest

from deploy.local.settings import PROJECT
from deploy.tools import lock
from shared.process.admin import Admin
from shared.process.settings import FromEnvironment
from tests.support import dockerfile
from tests.support.settings_names import SETTINGS

SITE_PACKAGES = sysconfig.get_path("purelib")
WRONG_SETTINGS = 2


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the image's working directory."""
    return dockerfile.lay_out(tmp_path_factory.mktemp("image"))


def run(arguments: Iterable[str], tree: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the image where nothing of the project is reachable except the image's files."""
    words = [sys.executable, "-S", *list(arguments)[1:]]
    variables = {**dockerfile.environment(), "PYTHONPATH": SITE_PACKAGES, **environment}
    return subprocess.run(words, cwd=tree, env=variables, capture_output=True, text=True, timeout=60)


def test_hadolint_finds_nothing() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([linter, dockerfile.DOCKERFILE], capture_output=True, text=True)
    assert (result.stdout, result.returncode) == ("", 0)


@pytest.mark.parametrize("service", SETTINGS)
def test_services_start_from_image_files_and_write_nothing(service: str, tree: Path) -> None:
    before = sorted(tree.rglob("*"))
    result = run(["python", "-m", service], tree)
    assert f"{service}: wrong setting: AMQP_URL: is not set" in result.stderr
    assert result.returncode == WRONG_SETTINGS
    assert sorted(tree.rglob("*")) == before


def test_default_command_is_a_service() -> None:
    *python, service = dockerfile.command_of(dockerfile.of("CMD")[-1])
    assert (python, service in SETTINGS) == (["python", "-m"], True)


async def test_health_check_uses_admin_port(tree: Path) -> None:
    check = dockerfile.command_of(dockerfile.of("HEALTHCHECK")[0])
    async with (admin := Admin(FromEnvironment())).serving("127.0.0.1", 0):
        healthy = await _to_thread(check, tree, str(admin.port))
    assert healthy.returncode == 0, healthy.stderr
    assert (await _to_thread(check, tree, str(admin.port))).returncode != 0


def test_packages_are_copied_and_not_ignored() -> None:
    let_through = [line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(source.rstrip("/") for source, _ in dockerfile.copied()) == sorted(let_through)
    assert {source.rstrip("/") for source, _ in dockerfile.copied()} > {*SETTINGS, "shared"}


def test_image_runs_as_unprivileged_user_without_shell() -> None:
    assert dockerfile.of("USER") == ["10001:10001"]
    assert dockerfile.of("STOPSIGNAL") == ["SIGTERM"]
    assert all(image.split()[0].partition("@")[0].count(":") == 1 for image in dockerfile.of("FROM"))


def test_installed_versions_match_constraints() -> None:
    written = (PROJECT / "deploy" / "container" / "constraints.txt").read_text()
    if sys.version_info[:2] == (3, 11):  # the image's version; others may need fewer packages
        assert written == lock.constraints(), "make lock"
    assert set(lock.constraints().splitlines()) <= set(written.splitlines())


async def _to_thread(check: list[str], tree: Path, port: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(run, check, tree, ADMIN_PORT=port)
