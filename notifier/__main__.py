"""Composition root of notifier: `python -m notifier`."""

import asyncio
from contextlib import AsyncExitStack

from notifier.alerts import store as alert_store
from notifier.alerts.queries import AlertQueryHandler
from notifier.alerts.store import AlertStore
from notifier.alerts.trimming import FiredAlertTrimmer
from notifier.alerts.watcher import AlertWatcher
from notifier.events import store as event_store
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
from shared.commands.notifier import AnyNotifierRequest
from shared.mongo import Mongo
from shared.process import lifecycle
from shared.process.admin import Admin, not_started_yet
from shared.schema_store import Schema
from shared.times import now_ms

SCHEMA = Schema("notifier", 1)
INDEXES = {**event_store.INDEXES, **inbox_store.INDEXES, **alert_store.INDEXES, **revocation_store.INDEXES}


async def serve(settings: NotifierSettings, node_id: str, stop: asyncio.Event) -> None:
    """Run until `stop` is set: events, revocations, alerts and queries."""
    admin = Admin(settings)
    admin.checks["start"] = not_started_yet
    async with AsyncExitStack() as stack:
        mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=settings.request_timeout_s)
        stack.callback(mongo.close)
        admin.checks["database"] = mongo.readiness
        await stack.enter_async_context(admin.serving(settings.admin_host, settings.admin_port))
        await lifecycle.run_until(stop, mongo.wait_ready(INDEXES, SCHEMA.claim))
        bus = await stack.enter_async_context(
            Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s)
        )
        admin.checks["broker"] = bus.readiness
        with lifecycle.stopping_on_failure(stop):
            await _work(settings, mongo, bus, admin, stop)


async def _work(settings: NotifierSettings, mongo: Mongo, bus: Bus, admin: Admin, stop: asyncio.Event) -> None:
    """Consume and sweep until `stop` is set."""
    events = EventStore(mongo.database, settings.notification_ttl_days)
    entries = InboxStore(mongo.database, settings.notification_ttl_days)
    revocations = RevocationStore(mongo.database, settings.revocation_ttl_days)
    alerts = AlertStore(mongo.database, settings.notification_ttl_days)
    inboxes = Inboxes(entries)
    trimmer = FiredAlertTrimmer(alerts)
    watcher = AlertWatcher(alerts, bus, now_ms, trimmer)
    handler = NotifierQueryHandler(
        InboxQueryHandler(entries, events, now_ms),
        AlertQueryHandler(alerts, bus, now_ms, settings.alerts_max_per_user),
        revocations,
        events,
        now_ms,
    )
    server = QueryServer(bus, AnyNotifierRequest, mongo.failing_fast(handler.answer))
    bus.on_disconnected.extend([inboxes.forget, watcher.forget])
    bus.on_connected.append(watcher.reconnected)
    event_consumer = EventConsumer(events, inboxes, bus, now_ms)
    revocation_consumer = RevocationConsumer(events, revocations, bus, now_ms)
    await bus.consume(NOTIFIER_QUERY, server.handle, concurrency=8)
    await bus.consume(NOTIFIER_EVENTS, event_consumer.handle, split=split_events)
    await bus.consume(NOTIFIER_REVOCATIONS, revocation_consumer.handle, split=split_events)
    await bus.consume(NOTIFIER_TICKS, watcher.handle)
    async with asyncio.TaskGroup() as tasks:
        sweeping = [tasks.create_task(work) for work in (sweep_inboxes(entries, now_ms), trimmer.run())]
        del admin.checks["start"]
        with lifecycle.stopping_on_failure(stop):
            await stop.wait()
        for task in sweeping:
            task.cancel()


if __name__ == "__main__":
    lifecycle.run("notifier", NotifierSettings, serve)
