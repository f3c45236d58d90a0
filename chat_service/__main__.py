"""Composition root of chat_service: `python -m chat_service`."""

import asyncio
from contextlib import AsyncExitStack

from chat_service.broker_cleanup import delete_old_topology
from chat_service.follower import position_store
from chat_service.follower.log_follower import LogFollower
from chat_service.follower.position_store import PositionStore
from chat_service.mentions import sent_mention_store
from chat_service.mentions.mention_notifier import MentionNotifier
from chat_service.mentions.sent_mention_store import SentMentionStore
from chat_service.partitions.commit_path import Services
from chat_service.partitions.limits import Limits, Quotas, limits_of
from chat_service.partitions.owned_partitions import OwnedPartitions
from chat_service.partitions.owner_store import OwnerStore
from chat_service.partitions.ownership import ReplicaView
from chat_service.partitions.rate_limit import RateLimiter
from chat_service.partitions.rates import RateWindows
from chat_service.partitions.room_cache import RoomStores
from chat_service.people import announcement_store, presence_store, profile_store
from chat_service.people.announcement_store import AnnouncementStore
from chat_service.people.announcer import PresenceAnnouncer
from chat_service.people.presence import Presence, PresenceTimes
from chat_service.people.presence_store import PresenceStore
from chat_service.people.profile_store import ProfileStore
from chat_service.people.profiles import Profiles
from chat_service.queries import ChatQueryHandler
from chat_service.rooms.decision import Rules
from chat_service.search import index_store
from chat_service.search.backfill import Backfill
from chat_service.search.index_store import IndexStore
from chat_service.search.indexer import SearchIndexer
from chat_service.search.message_search import MessageSearch
from chat_service.settings import ChatSettings
from chat_service.storage import room_store
from chat_service.storage.group_commit import GroupCommit
from chat_service.storage.group_read import GroupRead
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.migration import Migration
from chat_service.storage.purge import purge_deleted_rooms
from chat_service.storage.recent_read import RecentRead
from chat_service.storage.record_writer import RecordWriter
from chat_service.storage.repair import Repair
from chat_service.storage.room_store import RoomStore
from chat_service.storage.search_words import refresh_words
from shared.bus.bus import Bus
from shared.bus.events import split_events
from shared.bus.query_server import QueryServer
from shared.bus.topology import CHAT_PRESENCE, CHAT_QUERY, CHAT_USERS, PARTITIONS
from shared.commands.chat_queries import AnyChatRequest
from shared.database_clock import DatabaseClock
from shared.generation_store import DatabaseGeneration
from shared.mongo import Mongo
from shared.process import lifecycle
from shared.process.admin import Admin, not_started_yet
from shared.schema_store import Schema
from shared.times import monotonic_ms

SCHEMA = Schema("chat_service", 1)
INDEXES = {
    **room_store.INDEXES,
    **presence_store.INDEXES,
    **announcement_store.INDEXES,
    **profile_store.INDEXES,
    **position_store.INDEXES,
    **index_store.INDEXES,
    **sent_mention_store.INDEXES,
}


async def serve(settings: ChatSettings, node_id: str, stop: asyncio.Event) -> None:
    """Run until `stop` is set: this replica's share of the partitions, queries, presence, profiles."""
    admin = Admin(settings)
    admin.checks["start"] = not_started_yet
    async with AsyncExitStack() as stack:
        mongo = Mongo(settings.mongodb_uri, settings.mongodb_database, timeout_s=settings.request_timeout_s)
        stack.callback(mongo.close)
        admin.checks["database"] = mongo.readiness
        await stack.enter_async_context(admin.serving(settings.admin_host, settings.admin_port))
        await lifecycle.run_until(stop, mongo.wait_ready(INDEXES, SCHEMA.claim))
        clock = DatabaseClock(mongo)
        admin.checks["clock"] = clock.readiness
        rooms, room_log, present = RoomStore(mongo.database), LogStore(mongo.database), PresenceStore(mongo.database)
        messages = MessageStore(mongo.database)
        await lifecycle.run_until(stop, Migration(mongo.database, rooms).run())
        generation = DatabaseGeneration(mongo.database)
        await lifecycle.run_until(stop, generation.wait_known())

        bus = Bus(settings.amqp_url, node_id, request_timeout_s=settings.request_timeout_s)
        admin.checks["broker"] = bus.readiness
        profiles = Profiles(ProfileStore(mongo.database), bus, clock.now_ms)
        replicas = ReplicaView(node_id, "", PARTITIONS, monotonic_ms())
        limits = limits_of(settings)
        rates = RateLimiter(RateWindows(limits), bus, replicas, clock.now_ms, monotonic_ms)
        index = IndexStore(mongo.database)
        positions, indexer = PositionStore(mongo.database), SearchIndexer(index, clock.now_ms)
        mentions = MentionNotifier(rooms, messages, SentMentionStore(mongo.database), bus, clock.now_ms)
        follower = LogFollower(room_log, rooms, positions, [indexer, mentions], clock.now_ms)
        active_now = RecentRead(GroupRead(rooms.active_now), monotonic_ms)
        services = Services(
            RoomStores(rooms, messages, room_log, present, profiles, active_now),
            GroupCommit(room_log),
            RecordWriter(rooms, clock.now_ms),
            Limits(rates, rooms, limits, Quotas(settings.rooms_created_max, settings.rooms_joined_max)),
            follower,
            bus,
            Rules(edit_window_ms=settings.message_edit_window_s * 1_000),
            clock.now_ms,
            monotonic_ms,
            generation.id,
        )
        repair = Repair(rooms, messages, room_log, positions.touched_since, clock.now_ms)
        owned = OwnedPartitions(bus, OwnerStore(mongo.database), replicas, repair, services, mongo.is_unavailable)
        admin.checks["partitions"] = owned.readiness
        await stack.enter_async_context(bus)
        stack.enter_context(lifecycle.stopping_on_failure(stop))

        announcements = AnnouncementStore(mongo.database)
        announcer = PresenceAnnouncer(announcements, bus, node_id, clock.now_ms, settings.presence_room_max)
        presence = Presence(present, bus, node_id, clock.now_ms, PresenceTimes(), announcer.wake)
        handler = ChatQueryHandler(rooms, messages, room_log, presence, MessageSearch(index), clock.now_ms)
        server = QueryServer(bus, AnyChatRequest, mongo.failing_fast(handler.answer))
        await bus.consume(CHAT_USERS, profiles.write, split=split_events)
        await bus.consume(CHAT_QUERY, server.handle, concurrency=8)
        await bus.consume(CHAT_PRESENCE, presence.handle)
        async with asyncio.TaskGroup() as tasks:
            owning = tasks.create_task(owned.run(stop))
            running = [
                tasks.create_task(work)
                for work in (
                    clock.run(),
                    presence.sweep(),
                    announcer.run(),
                    purge_deleted_rooms(rooms, messages, room_log, index, clock.now_ms),
                    delete_old_topology(bus),
                    refresh_words(mongo.database),
                    follower.run(owned.repaired_terms),
                    Backfill(mongo.database, rooms, room_log, index, owned.repaired_terms).run(),
                )
            ]
            del admin.checks["start"]
            await owning
            await follower.finish()
            for task in running:
                task.cancel()


if __name__ == "__main__":
    lifecycle.run("chat_service", ChatSettings, serve)
