"""The one answer of notifier without which no gateway starts, for tests that need nothing else of notifier."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from shared.bus.bus import Bus
from shared.bus.query_server import QueryServer
from shared.bus.topology import NOTIFIER_QUERY
from shared.commands.notifier import AnyNotifierRequest, ListRevocations, RevocationPage
from shared.errors import Unavailable
from shared.ids import Prefix, new_id


async def _answer(query: AnyNotifierRequest) -> msgspec.Struct:
    if isinstance(query, ListRevocations):
        return RevocationPage(items=(), more=False)
    raise Unavailable("notifier does not run in this test")


@asynccontextmanager
async def no_revocations(amqp_url: str) -> AsyncIterator[None]:
    """Answer `ListRevocations` with an empty list, and every other query of notifier with UNAVAILABLE."""
    async with Bus(amqp_url, new_id(Prefix.NODE)) as bus:
        await bus.wait_connected()
        await bus.consume(NOTIFIER_QUERY, QueryServer(bus, AnyNotifierRequest, _answer).handle)
        yield
