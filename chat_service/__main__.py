"""Composition root of chat_service: `python -m chat_service`."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

from chat_service import presence_store, store
from chat_service.group_insert import GroupInsert
from chat_service.group_read import GroupRead
from chat_service.node_store import NodeStore
from chat_service.nodes import Nodes
from chat_service.partition import Partition
from chat_service.presence import Presence, PresenceTimes
from chat_service.presence_store import PresenceStore
from chat_service.profile_store import ProfileStore
from chat_service.profiles import Profiles
from chat_service.purge import purge_deleted_rooms
from chat_service.queries import ChatQueryHandler
from chat_service.rate_limit import RateLimiter
from chat_service.rate_window import SlidingWindow
from chat_service.repair import repair
from chat_service.settings import ChatSettings
from chat_service.store import RoomStore
from shared.bus.bus import Bus
from shared.bus.events import split_events
from shared.bus.query_server import QueryServer
from shared.bus.topology import CHAT_PRESENCE, CHAT_QUERY, CHAT_USERS
from shared.commands.chat import ChatQueries
from shared.mongo import Mongo
from shared.process import lifecycle
from shared.process.admin import Admin, starting
from shared.times import now_ms

INDEXES = {**store.INDEXES, **presence_store.INDEXES}


async def serve(settings: ChatSettings, node_id: str, stop: asyncio.Event) -> None:
    """Run until `stop` is set: this replica's share of the partitions, queries, presence, profiles."""
    admin = Admin()
    admin.checks["start"] = starting
    async with AsyncExitStack() as stack:
        mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=settings.request_timeout_s)
        stack.callback(mongo.close)
        admin.checks["database"] = mongo.readiness
        await stack.enter_async_context(admin.serving(settings.admin_host, settings.admin_port))
        await lifecycle.until(stop, mongo.wait_ready(INDEXES))
        bus = await stack.enter_async_context(
            Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s)
        )
        stack.enter_context(lifecycle.stopping_on_failure(stop))
        admin.checks["broker"] = bus.readiness
        rooms, present = RoomStore(mongo.database), PresenceStore(mongo.database)
        presence = Presence(present, bus, node_id, now_ms, PresenceTimes())
        profiles = Profiles(ProfileStore(mongo.database), node_id, now_ms)
        rates = RateLimiter(SlidingWindow(settings.rate_limit_messages_per_minute), bus, node_id, now_ms)
        inserts, active_now = GroupInsert(rooms), GroupRead(rooms.active_now)
        nodes = Nodes(
            NodeStore(mongo.database),
            bus,
            node_id,
            now_ms,
            lambda number, is_current: Partition(
                number, rooms, present, profiles, rates, bus, inserts, active_now, now_ms, is_current
            ),
            partial(repair, rooms, now_ms),
            rates.nodes_changed,
        )
        admin.checks["lease"] = nodes.readiness
        admin.checks["partitions"] = nodes.partitions_readiness
        handler = ChatQueryHandler(rooms, presence, now_ms)
        server = QueryServer(bus, ChatQueries, mongo.failing_fast(handler.answer))
        await bus.consume(rates.queue, rates.handle)
        await bus.consume(profiles.queue, profiles.learn, split=split_events)
        await bus.consume(CHAT_USERS, profiles.write, split=split_events)
        await bus.consume(CHAT_QUERY, server.handle, concurrency=8)
        await bus.consume(CHAT_PRESENCE, presence.handle)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(nodes.run(stop))
            running = [
                tasks.create_task(work) for work in (nodes.sweep(), presence.sweep(), purge_deleted_rooms(rooms))
            ]
            del admin.checks["start"]
            await stop.wait()
            for task in running:
                task.cancel()
        await nodes.leave()


if __name__ == "__main__":
    lifecycle.run("chat_service", ChatSettings, serve)
