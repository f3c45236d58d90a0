"""The whole system as `make run` starts it, on the session's broker and database, once for all end-to-end tests."""

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
    """Yield two gateways and one of each other service. It stops before other tests use the broker."""
    await empty_queues(infrastructure.amqp_url)
    directory: Path = tmp_path_factory.mktemp("system")
    settings = settings_on(infrastructure) | {"LOG_FORMAT": "json", "LOG_LEVEL": "debug", "PRESENCE_ROOM_MAX": "20"}
    with LocalSystem(directory, settings) as started:
        yield started
