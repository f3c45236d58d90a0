"""One browser and one running system of two gateways for all browser tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.support.browser import CHROMIUM, INSTALL, chromium
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem, settings_on
from tests.support.queues import empty_queues


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    """Yield Debian's Chromium, or skip if it is missing."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: {INSTALL}")
    async with chromium() as started:
        yield started


@pytest.fixture(scope="package")
async def system(
    browser: Browser, infrastructure: Infrastructure, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalSystem]:
    """Yield a system with two gateways on one port and one of each other service. Requires the browser."""
    await empty_queues(infrastructure.amqp_url)
    directory: Path = tmp_path_factory.mktemp("system")
    with LocalSystem(directory, settings_on(infrastructure)) as started:
        yield started


@pytest.fixture
def url(system: LocalSystem) -> str:
    """Return the address of the page."""
    return system.entries()["GATEWAY_URL"]
