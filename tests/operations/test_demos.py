"""The demonstrations of upgrades and of a restore, in small."""

import subprocess
import sys

import pytest

from deploy.local.settings import PROJECT
from tests.support.balancer import needs_haproxy

pytestmark = [pytest.mark.long, needs_haproxy]

SMALL = ("--clients", "20", "--rooms", "4", "--rate", "20", "--seconds", "3")
TIMEOUT_S = 600.0


def play(module: str) -> str:
    """Run a demonstration and return its output; fail with it if the demonstration counted a fault."""
    command = (sys.executable, "-m", f"tests.operations.{module}", *SMALL)
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.skipif(not (PROJECT / ".git").exists(), reason="the previous release is a revision of the repository")
def test_upgrade_and_rollback_lose_nothing() -> None:
    assert "faults: 0" in play("upgrade_demo")


def test_restore_tells_clients_and_restarts_no_gateway() -> None:
    assert "faults: 0" in play("restore_demo")
