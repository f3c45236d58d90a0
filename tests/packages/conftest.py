"""One running system for all package tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem, settings_on
from tests.support.queues import empty_queues


@pytest.fixture(scope="package")
async def system(
    infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalSystem]:
    """Two gateways and one of each other service."""
    await empty_queues(infrastructure.amqp_url)
    directory: Path = tmp_path_factory.mktemp("system")
    with LocalSystem(directory, settings_on(infrastructure)) as started:
        yield started
