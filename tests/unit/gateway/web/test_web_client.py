"""The unit tests of the JavaScript client and of the page's state modules, under Node."""

import subprocess
from pathlib import Path

from tests.support.node import node

HERE = Path(__file__).parent / "node"
TIMEOUT_S = 60.0


def test_node_tests_pass() -> None:
    files = sorted(HERE.glob("*.test.mjs"))
    assert files
    command = [node(), "--test", "--test-reporter=tap", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stdout[-20_000:]
    assert "# fail 0" in result.stdout
