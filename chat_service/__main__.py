"""chat_service: `python -m chat_service`. The composition root."""

import asyncio

from chat_service import metrics, presence_store, store
from chat_service.limits import SlidingWindow
from chat_service.partition import Partition
from chat_service.presence import Presence
from chat_service.presence_store import PresenceStore
from chat_service.queries import Queries
from chat_service.settings import ChatSettings
from chat_service.store import RoomStore
from shared import lifecycle
from shared.admin import Admin
from shared.bus import Bus
from shared.chat_commands import ChatQueries
from shared.mongo import Mongo
from shared.rpc import QueryServer
from shared.times import now_ms
from shared.topology import CHAT_PRESENCE, CHAT_QUERY, PARTITIONS, partition_queue


async def serve(settings: ChatSettings, node_id: str, stop: asyncio.Event) -> None:
    """Run until `stop` is set: partitions and queries."""
    admin = Admin()
    mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=settings.request_timeout_s)
    async with admin.serving(settings.admin_host, settings.admin_port):
        admin.checks["database"] = mongo.readiness
        await lifecycle.until(stop, mongo.wait_ready({**store.INDEXES, **presence_store.INDEXES}))
        async with Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s) as bus:
            admin.checks["broker"] = bus.readiness
            rooms = RoomStore(mongo.database)
            present = PresenceStore(mongo.database)
            presence = Presence(present, bus, node_id, now_ms)
            limiter = SlidingWindow(settings.rate_limit_messages_per_minute)
            queries = Queries(rooms, presence)
            await bus.consume(CHAT_QUERY, QueryServer(bus, ChatQueries, queries.answer).handle, concurrency=8)
            await bus.consume(CHAT_PRESENCE, presence.handle)
            for number in range(PARTITIONS):
                partition = Partition(rooms, present, bus, limiter, now_ms)
                await bus.consume(partition_queue(number), partition.handle)
                metrics.PARTITIONS.inc()
            await lifecycle.until(stop, presence.sweep())
    mongo.close()


if __name__ == "__main__":
    lifecycle.run("chat_service", ChatSettings, serve)
