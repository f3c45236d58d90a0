"""notifier: `python -m notifier`. The composition root."""

import asyncio

from notifier.inbox import Inboxes
from notifier.intake import Intake
from notifier.queries import Queries
from notifier.settings import NotifierSettings
from notifier.store import INDEXES, NotifierStore
from shared import lifecycle
from shared.admin import Admin, starting
from shared.bus import Bus
from shared.events import split_events
from shared.mongo import Mongo
from shared.notifier_commands import NotifierQueries
from shared.rpc import QueryServer
from shared.times import now_ms
from shared.topology import NOTIFIER_EVENTS, NOTIFIER_QUERY


async def serve(settings: NotifierSettings, node_id: str, stop: asyncio.Event) -> None:
    """Run until `stop` is set: events and queries."""
    admin = Admin()
    admin.checks["start"] = starting
    mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=settings.request_timeout_s)
    admin.checks["database"] = mongo.readiness
    async with admin.serving(settings.admin_host, settings.admin_port):
        await lifecycle.until(stop, mongo.wait_ready(INDEXES))
        async with Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s) as bus:
            admin.checks["broker"] = bus.readiness
            store = NotifierStore(mongo.database, settings.notification_ttl_days)
            inboxes = Inboxes(store)
            queries = QueryServer(bus, NotifierQueries, Queries(store).answer)
            await bus.consume(NOTIFIER_QUERY, queries.handle, concurrency=8)
            intake = Intake(store, inboxes, bus, now_ms)
            await bus.consume(NOTIFIER_EVENTS, intake.handle, split=split_events)
            del admin.checks["start"]
            await stop.wait()
    mongo.close()


if __name__ == "__main__":
    lifecycle.run("notifier", NotifierSettings, serve)
