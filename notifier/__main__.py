"""notifier: `python -m notifier`. The composition root."""

import asyncio

from notifier.alerts import store as alerts_store
from notifier.alerts.queries import AlertQueryHandler
from notifier.alerts.store import AlertStore
from notifier.alerts.watcher import AlertWatcher
from notifier.events import store as events_store
from notifier.events.store import EventStore
from notifier.inbox import store as inbox_store
from notifier.inbox.expiry import sweep_inboxes
from notifier.inbox.inbox import Inboxes
from notifier.inbox.queries import InboxQueryHandler
from notifier.inbox.store import InboxStore
from notifier.intake.consumer import EventConsumer
from notifier.queries import NotifierQueryHandler
from notifier.revocations import store as revocation_store
from notifier.revocations.consumer import RevocationConsumer
from notifier.revocations.store import RevocationStore
from notifier.settings import NotifierSettings
from shared.bus.bus import Bus
from shared.bus.events import split_events
from shared.bus.query_server import QueryServer
from shared.bus.topology import NOTIFIER_EVENTS, NOTIFIER_QUERY, NOTIFIER_REVOCATIONS, NOTIFIER_TICKS
from shared.commands.notifier import NotifierQueries
from shared.mongo import Mongo
from shared.process import lifecycle
from shared.process.admin import Admin, starting
from shared.times import now_ms

INDEXES = {
    **events_store.INDEXES,
    **inbox_store.INDEXES,
    **alerts_store.INDEXES,
    **revocation_store.INDEXES,
}


async def serve(settings: NotifierSettings, node_id: str, stop: asyncio.Event) -> None:
    """Run until `stop` is set: events, alerts and queries."""
    admin = Admin()
    admin.checks["start"] = starting
    mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=settings.request_timeout_s)
    admin.checks["database"] = mongo.readiness
    async with admin.serving(settings.admin_host, settings.admin_port):
        await lifecycle.until(stop, mongo.wait_ready(INDEXES))
        async with Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s) as bus:
            admin.checks["broker"] = bus.readiness
            events = EventStore(mongo.database, settings.notification_ttl_days)
            entries = InboxStore(mongo.database, settings.notification_ttl_days)
            standings = RevocationStore(mongo.database, settings.revocation_ttl_days)
            alerts = AlertStore(mongo.database, settings.notification_ttl_days)
            inboxes = Inboxes(entries)
            intake = EventConsumer(events, inboxes, bus, now_ms)
            watch = AlertWatcher(alerts, bus, now_ms)
            desk = AlertQueryHandler(alerts, bus, now_ms, settings.alerts_max_per_user)
            queries = NotifierQueryHandler(InboxQueryHandler(entries, events, now_ms), desk, standings)
            bus.on_disconnected += [inboxes.forget, watch.forget]
            bus.on_connected.append(watch.reconnected)
            answer = QueryServer(bus, NotifierQueries, queries.answer, mongo.is_away)
            await bus.consume(NOTIFIER_QUERY, answer.handle, concurrency=8)
            await bus.consume(NOTIFIER_EVENTS, intake.handle, split=split_events)
            await bus.consume(
                NOTIFIER_REVOCATIONS, RevocationConsumer(events, standings, bus, now_ms).handle, split=split_events
            )
            await bus.consume(NOTIFIER_TICKS, watch.handle)
            async with asyncio.TaskGroup() as tasks:
                sweeping = tasks.create_task(sweep_inboxes(entries, now_ms))
                del admin.checks["start"]
                await stop.wait()
                sweeping.cancel()
    mongo.close()


if __name__ == "__main__":
    lifecycle.run("notifier", NotifierSettings, serve)
