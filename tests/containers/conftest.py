"""The engine, the image and the servers: built once for all tests here."""

from collections.abc import Iterator

import pytest

from deploy.container import image
from deploy.container.engine import Engine, private_directory, private_engine
from tests.containers import compose_file, servers


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Yield a private engine that has the image and the servers."""
    with private_engine(private_directory()) as started:
        image.build(started)
        servers.build(started, compose_file.replaced_images())
        yield started
