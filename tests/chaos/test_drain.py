"""A stopped gateway drains its clients, each with an individual delay, and no message is lost."""

from pathlib import Path

from shared.ids import Prefix, new_id
from tests.chaos.drain import drain
from tests.chaos.system import SETTINGS
from tests.support.infrastructure import Infrastructure
from tests.support.local_system import LocalSystem
from tests.support.queues import empty_queues

SOCKETS = 200
DRAIN_TIMEOUT_S = 8.0


async def test_sigterm_under_load_loses_and_repeats_nothing(infrastructure: Infrastructure, tmp_path: Path) -> None:
    await empty_queues(infrastructure.amqp_url)
    one_each = {"GATEWAYS": "1", "CHAT_SERVICES": "1", "MARKET_FEEDS": "1", "NOTIFIERS": "1"}
    servers = {"AMQP_URL": infrastructure.amqp_url, "MONGODB_URI": infrastructure.mongodb_uri}
    with LocalSystem(
        tmp_path / "system", {**SETTINGS, **one_each, **servers, "MONGODB_DATABASE": new_id(Prefix.COMMAND)}
    ) as system:
        drained = await drain(system, tmp_path, SOCKETS, DRAIN_TIMEOUT_S)
    assert drained.problems() == [], drained.figures()
