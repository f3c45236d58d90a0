"""schemathesis sends valid and invalid requests from the OpenAPI document and checks the answers against it.

For a longer run with other requests: `API_EXAMPLES=200 API_SEED=2 make test TESTS=tests/api`.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.local.settings import PROJECT
from shared.ids import Prefix, new_id
from tests.support.documents import rest
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem
from tests.support.queues import empty_queues
from tests.support.tokens import SECRET, mint

CONFIG = Path(__file__).parent / "schemathesis.toml"
EXAMPLES = os.environ.get("API_EXAMPLES", "3")  # per call, besides the phases examples and coverage
SEED = os.environ.get("API_SEED", "1")
TIMEOUT_S = 600.0


@pytest.fixture
async def system(infrastructure: Infrastructure, tmp_path: Path) -> AsyncIterator[LocalSystem]:
    """Yield a system without an effective rate limit."""
    await empty_queues(infrastructure.amqp_url)
    settings = {
        "AMQP_URL": infrastructure.amqp_url,
        "MONGODB_URI": infrastructure.mongodb_uri,
        "MONGODB_DATABASE": new_id(Prefix.COMMAND),
        "JWT_SECRET": SECRET,
        "GATEWAYS": "1",
        "GATEWAY_HOST": "127.0.0.1",
        "RATE_LIMIT_MESSAGES_PER_MINUTE": "100000",
    }
    with LocalSystem(tmp_path / "system", settings) as started:
        yield started


def test_answers_match_openapi_document(system: LocalSystem, tmp_path: Path) -> None:
    url = system.entries()["GATEWAY_URL"]
    arguments = ["run", f"{url}/v1/openapi.json", "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"]
    arguments += ["-H", f"Authorization: Bearer {mint('user_456')}", "--max-examples", EXAMPLES, "--seed", SEED]
    arguments += ["--generation-database", "none", "--no-color", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "SCHEMATHESIS_HOOKS": "tests.api.hooks", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = sum(len(item) for item in rest()["paths"].values())
    assert f"Tested: {calls}" in done.stdout, done.stdout
