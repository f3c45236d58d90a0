"""The plans of all queries of chat_service: the stores run, and every command they send is explained.

No command of a listed call can be forgotten, and a call that is not listed is noticed (`calls_not_made`). SecantusDB
explains find, aggregate and findAndModify correctly (stages, index, keys and documents examined agree with the measured
times) but ignores the filter of update and delete, which is explained as a find instead. Its number of returned
documents is from before a limit; the limit is applied here.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from chat_service.follower import position_store
from chat_service.follower.position_store import PositionStore
from chat_service.mentions import sent_mention_store
from chat_service.mentions.sent_mention_store import SentMentionStore
from chat_service.mentions.sent_mentions import SentMentions
from chat_service.partitions.owner_store import OwnerStore
from chat_service.partitions.ownership import NO_OWNER, OwnerRecord
from chat_service.people import announcement_store, presence_store, profile_store
from chat_service.people.announcement_store import AnnouncementStore
from chat_service.people.presence_record import PresenceRecord
from chat_service.people.presence_store import PresenceStore
from chat_service.people.profile_store import ProfileStore, StoredProfile
from chat_service.rooms.log import EntryKind, LogEntry, MemberEffect, settings_of
from chat_service.rooms.message import Message
from chat_service.rooms.room import Membership, Room, RoomType
from chat_service.search import index_store
from chat_service.search.builder import PageBuilder
from chat_service.search.index_store import IndexStore
from chat_service.search.tree import CHUNK, Page, StoredPage
from chat_service.storage import room_store
from chat_service.storage.log_store import LogStore
from chat_service.storage.member_store import MemberStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.room_store import RoomStore
from chat_service.storage.write_behind import MessagePlace
from shared.bus.topology import PARTITIONS
from shared.mongo import Database, Document, Indexes
from shared.protocol.server_frames import UserProfile
from tests.bench.message_plans import fill_changes, message_calls
from tests.bench.store_call import StoreCall

INDEXES: Indexes = {
    **room_store.INDEXES,
    **presence_store.INDEXES,
    **announcement_store.INDEXES,
    **profile_store.INDEXES,
    **position_store.INDEXES,
    **index_store.INDEXES,
    **sent_mention_store.INDEXES,
}

NOW_MS = 1_800_000_000_000
FILLED_AT_ONCE = 2_000
DELETED_ROOM = "room_97"
OLD_ROOM = "room_old"  # its messages were written by a version before the log
OLD_MESSAGES = 100

# Queries for which SecantusDB examines more than MongoDB, with the reason to accept that.
UNSORTED = "SecantusDB reads no index in order and sorts all; MongoDB stops at the limit"
PREFIXES = "SecantusDB finds no index for beginnings of words and filters the public rooms; MongoDB does"


SMALL = "the collection has one document for each partition"


@dataclass(frozen=True)
class QueryPlan:
    """The plan of one command of a call."""

    call: StoreCall
    command: str
    stages: tuple[str, ...]
    keys_examined: int
    docs_examined: int
    returned: int

    @property
    def faults(self) -> list[str]:
        """Return the problems of the plan."""
        if self.call.whole:
            return []
        found = ["a collection scan"] if "COLLSCAN" in self.stages else []
        if not self.call.spare and self.docs_examined > 2 * self.returned + 10:
            found.append(f"examines {self.docs_examined} to return {self.returned}")
        return found

    def __str__(self) -> str:
        title = f"{self.call.name} {self.call.note}".strip()
        counts = f"keys {self.keys_examined:>6} docs {self.docs_examined:>6} returned {self.returned:>6}"
        return f"{title:38} {self.command:22} {counts}  {' < '.join(self.stages)}"


class Listener(CommandListener):
    """Records the commands that are sent while it is active."""

    def __init__(self) -> None:
        self.commands: list[Document] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.commands.append(dict(event.command))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@dataclass
class Stores:
    """chat_service's stores on a database whose commands are recorded."""

    rooms: RoomStore
    messages: MessageStore
    room_log: LogStore
    presence: PresenceStore
    announcements: AnnouncementStore
    owners: OwnerStore
    profiles: ProfileStore
    positions: PositionStore
    index: IndexStore
    sent_mentions: SentMentionStore

    @classmethod
    def on(cls, database: Database) -> "Stores":
        return cls(
            RoomStore(database),
            MessageStore(database),
            LogStore(database),
            PresenceStore(database),
            AnnouncementStore(database),
            OwnerStore(database),
            ProfileStore(database),
            PositionStore(database),
            IndexStore(database),
            SentMentionStore(database),
        )


def a_room(room_id: str, number: int = 0, **fields: Any) -> Room:
    """Return a room; `number` varies name, type and time."""
    kinds = (RoomType.PUBLIC, RoomType.PRIVATE, RoomType.PUBLIC, RoomType.GROUP)
    room = Room(
        id=room_id,
        name=f"Traders w{number}",
        description="",
        type=kinds[number % 4],
        created_by="user_0",
        creator_id="user_0",
        created_at_ms=NOW_MS - number,
        active_at_ms=NOW_MS - number,
        direct=(f"user_{number % 50}", "user_0") if number % 20 == 1 else None,
        rev=1,
    )
    for name, value in fields.items():
        setattr(room, name, value)
    return room


def an_entry(room_id: str, rev: int, kind: EntryKind = EntryKind.MESSAGE, **fields: Any) -> LogEntry:
    """Return an entry of a room's log."""
    return LogEntry(
        id=f"{room_id}_entry_{rev}",
        room_id=room_id,
        rev=rev,
        kind=kind,
        term=1,
        author_id=f"user_{rev % 100}",
        at_ms=NOW_MS - 10_000_000 + rev,
        last_seq=max(rev - 1, 0),
        member_count=1,
        **fields,
    )


def a_message(room_id: str, seq: int) -> LogEntry:
    """Return a message of one of a hundred users; every other one has a clientMessageId. Its rev is seq + 1."""
    entry = an_entry(room_id, seq + 1)
    message = Message(
        id=entry.id,
        room_id=room_id,
        seq=seq,
        rev=entry.rev,
        user_id=entry.author_id,
        user=UserProfile(first_name="Ann", last_name="Trader"),
        text="EUR/USD looks strong above 1.0850 " + "x" * (seq % 100),
        client_message_id=f"client_{seq}" if seq % 2 else None,
        created_at_ms=entry.at_ms,
    )
    return msgspec.structs.replace(entry, message=message)


def an_old_message(seq: int) -> Document:
    """Return a message as versions before the log stored it."""
    return {
        "_id": f"{OLD_ROOM}_msg_{seq}",
        "roomId": OLD_ROOM,
        "seq": seq,
        "userId": "user_1",
        "user": {"firstName": "Ann"},
        "text": "EUR/USD",
        "clientMessageId": f"client_{seq}",
        "sentAs": f"{OLD_ROOM}/user_1/client_{seq}",
        "createdAtMs": NOW_MS - 20_000_000 + seq,
    }


def membership(room_id: str, user_ids: list[str]) -> LogEntry:
    """Return the entry that makes these users members."""
    effects = tuple(
        MemberEffect(user_id=user_id, is_joined=True, is_invited=True, joined_at_ms=NOW_MS) for user_id in user_ids
    )
    return an_entry(room_id, 1, EntryKind.CREATED, settings=settings_of(a_room(room_id)), members=effects)


async def fill(database: Database, room_id: str, messages: int, *, rooms: int, users: int) -> None:
    """Create one room with many messages and every user, among many other rooms, users and gateways."""
    stores = Stores.on(database)
    for first in range(1, messages + 1, FILLED_AT_ONCE):
        last = min(first + FILLED_AT_ONCE - 1, messages)
        await stores.room_log.insert([a_message(room_id, seq) for seq in range(first, last + 1)])
    await stores.room_log.insert([a_message(DELETED_ROOM, seq) for seq in range(1, 31)])
    await stores.room_log.insert([membership(DELETED_ROOM, ["user_0", "user_1"])])
    await database["messages"].insert_many([an_old_message(seq) for seq in range(1, OLD_MESSAGES + 1)])
    made = [
        a_room(room_id, last_seq=messages, rev=messages + 1, last_message_at_ms=NOW_MS, member_count=users),
        a_room(OLD_ROOM, last_seq=OLD_MESSAGES, rev=OLD_MESSAGES),
        *(a_room(f"room_{number}", number, deleted=number % 97 == 0) for number in range(1, rooms)),
    ]
    members: dict[str, list[str]] = {room_id: [f"user_{number}" for number in range(users)]}
    for number in range(users):
        for step in range(5):
            members.setdefault(f"room_{(number * 7 + step) % (rooms - 1) + 1}", []).append(f"user_{number}")
    await stores.rooms.put_rooms(made)
    await stores.rooms.put_members([membership(one, user_ids) for one, user_ids in members.items()])
    await fill_changes(stores.messages, room_id)
    gateways = [f"gateway_{number}" for number in range(10)]
    for number, gateway in enumerate(gateways):
        here = [f"user_{index}" for index in range(number, users, 20)]
        await stores.presence.renew(gateway, NOW_MS + (1 if number else -1), is_new=True)
        await stores.presence.change(gateway, here, [], NOW_MS - number)
        present = list((await stores.presence.records(here)).values())
        memberships = await stores.announcements.memberships(here, 10_000)
        await stores.announcements.set_flags(memberships, [])
        await stores.announcements.finish(present[:-1], NOW_MS)
        await stores.owners.renew(f"chat_{number}")
    await stores.announcements.add_pending_counts({f"room_{number}": NOW_MS + number for number in range(1, 50)})
    for partition in range(PARTITIONS):
        await stores.owners.replace(partition, NO_OWNER, "chat_0", "queue_0")
    builder = PageBuilder(stores.index)
    for number in range(0, messages // CHUNK + 1):
        await builder.build_chunk(room_id, Page(0, number), messages + 1, frozenset())
    await builder.build_chunk(DELETED_ROOM, Page(0, 0), 31, frozenset())
    await stores.positions.save({f"room_{number}": {"search": 1} for number in range(1, rooms)}, NOW_MS - 1_000_000)
    await stores.positions.save({room_id: {"search": messages}}, NOW_MS)
    await stores.positions.save_checkpoints(range(PARTITIONS), NOW_MS)
    for number in range(50):
        await stores.profiles.put(f"user_{number}", StoredProfile(first_name="Ann"))
        await stores.profiles.note_event(f"event_{number}", NOW_MS)


def calls(stores: Stores, room_id: str, messages: int) -> Iterator[StoreCall]:
    """Yield a call of every method of every store on the data of `fill`."""
    yield from _log_calls(stores.room_log, room_id, messages)
    yield from _room_calls(stores.rooms, room_id, messages)
    yield from _member_calls(stores.rooms, room_id)
    yield from message_calls(stores.messages, room_id)
    yield from _presence_calls(stores.presence, room_id)
    yield from _announcement_calls(stores.announcements, room_id)
    yield from _owner_calls(stores.owners)
    yield from _position_calls(stores.positions, room_id)
    yield from _index_calls(stores.index, room_id, messages)
    users = [f"user_{number}" for number in range(20)]
    yield StoreCall("put", lambda: stores.profiles.put("user_1", StoredProfile(first_name="Ann")))
    yield StoreCall("profiles", lambda: stores.profiles.profiles(users))
    yield StoreCall("is_known", lambda: stores.profiles.is_known("event_1"))
    yield StoreCall("note_event", lambda: stores.profiles.note_event("event_1", NOW_MS))
    yield StoreCall(
        "replace_sent", lambda: stores.sent_mentions.replace_sent("user_1", SentMentions(), NOW_MS), note="new"
    )
    yield StoreCall("sent", lambda: stores.sent_mentions.sent(["user_1", "user_2"]))
    yield StoreCall("replace_sent", lambda: stores.sent_mentions.replace_sent("user_1", SentMentions(1), NOW_MS))
    yield StoreCall("erase_content", lambda: stores.room_log.erase_content(DELETED_ROOM, 31))
    yield StoreCall("remove_before", lambda: stores.room_log.remove_before(DELETED_ROOM, 31))
    yield StoreCall("purge_members", lambda: stores.rooms.purge_members(DELETED_ROOM))


def _log_calls(room_log: LogStore, room_id: str, messages: int) -> Iterator[StoreCall]:
    ids = [f"{room_id}_entry_{rev}" for rev in range(2, 22)]
    keys = [
        (room_id, f"user_{(seq + 1) % 100}", f"client_{seq}") for seq in range(1, messages, max(messages // 20, 2) | 1)
    ]
    old_keys = [(OLD_ROOM, "user_1", f"client_{seq}") for seq in range(1, 21)]
    yield StoreCall("insert", lambda: room_log.insert([a_message(room_id, messages + 1)]))
    yield StoreCall("after", lambda: room_log.after(room_id, messages - 20))
    yield StoreCall("between", lambda: room_log.between(room_id, messages // 2, messages // 2 + 50))
    yield StoreCall("by_id", lambda: room_log.by_id(ids))
    yield StoreCall("by_shared_id", lambda: room_log.by_shared_id(ids))
    yield StoreCall("by_client_id", lambda: room_log.by_client_id(keys))
    yield StoreCall("old_by_client_id", lambda: room_log.old_by_client_id(old_keys))
    yield StoreCall("places_beyond", lambda: room_log.places_beyond(room_id, messages - 20))
    yield StoreCall("tail", lambda: room_log.tail(room_id, messages - 20))
    yield StoreCall("revs", lambda: room_log.revs(room_id, messages // 2, messages // 2 + 50))
    yield StoreCall("membership_changes", lambda: room_log.membership_changes(room_id, messages - 50, 0))
    yield StoreCall("times_since", lambda: room_log.times_since(room_id, messages - 50, 0))
    for note, first in (("oldest", 1), ("at depth", messages // 2), ("newest", messages - 49)):
        yield StoreCall("messages_between", partial(room_log.messages_between, room_id, first, first + 49), note=note)
    yield StoreCall("messages_between", lambda: room_log.messages_between(OLD_ROOM, 41, 90), note="older than the log")


def _room_calls(rooms: RoomStore, room_id: str, messages: int) -> Iterator[StoreCall]:
    others = [f"room_{number}" for number in range(1, 21)]
    users = [f"user_{number}" for number in range(20)]
    private = [RoomType.PRIVATE.value, RoomType.GROUP.value]
    later = [a_room(other, number, rev=2) for number, other in enumerate(others, 1)]
    places = [MessagePlace(other, 3, 1, "user_1", NOW_MS - number) for number, other in enumerate(others, 1)]
    yield StoreCall("rooms", lambda: rooms.rooms(others))
    yield StoreCall("put_rooms", lambda: rooms.put_rooms(later))
    yield StoreCall("mark_active", lambda: rooms.mark_active(others, NOW_MS - 30))
    yield StoreCall("advance_rooms", lambda: rooms.advance_rooms(places))
    yield StoreCall("ids_created_by", lambda: rooms.ids_created_by("user_0", 100))
    yield StoreCall("count_joined", lambda: rooms.count_joined("user_7", ["room_new"]))
    yield StoreCall("have_common_room", lambda: rooms.have_common_room("user_7", "user_8"))
    yield StoreCall("rooms_before", lambda: rooms.rooms_before("room_5", 20), UNSORTED)
    yield StoreCall("rooms_active_since", lambda: rooms.rooms_active_since(NOW_MS - 20))
    yield StoreCall("rooms_to_purge", lambda: rooms.rooms_to_purge(NOW_MS))
    yield StoreCall("set_purge_due", lambda: rooms.set_purge_due(DELETED_ROOM, NOW_MS + 1))
    yield StoreCall("set_purge_due", lambda: rooms.set_purge_due(DELETED_ROOM, None), note="none")
    yield StoreCall("direct_rooms_since", lambda: rooms.direct_rooms_since(users, NOW_MS - 20, 5))
    yield StoreCall("public_rooms", lambda: rooms.public_rooms([], 0, 20), UNSORTED)
    yield StoreCall("public_rooms", lambda: rooms.public_rooms(["w12", "tra"], 0, 20), PREFIXES, "by words")
    yield StoreCall("rooms_among", lambda: rooms.rooms_among(others, private, []))
    yield StoreCall("rooms_among", lambda: rooms.rooms_among(others, private, ["w1"]), note="by words")


def _member_calls(rooms: MemberStore, room_id: str) -> Iterator[StoreCall]:
    others = [f"room_{number}" for number in range(1, 21)]
    users = [f"user_{number}" for number in range(20)]
    yield StoreCall("members", lambda: rooms.members([(room_id, user_id) for user_id in users]))
    yield StoreCall("heirs", lambda: rooms.heirs(room_id, 3), UNSORTED)
    yield StoreCall("put_members", lambda: rooms.put_members([membership(room_id, ["user_1", "user_2", "user_new"])]))
    yield StoreCall("put_read_marks", lambda: rooms.put_read_marks({(room_id, user_id): 5 for user_id in users}))
    yield StoreCall("active_now", lambda: rooms.active_now([room_id]), note="of one room")
    yield StoreCall("active_now", lambda: rooms.active_now(others), note="of twenty rooms")
    yield StoreCall("room_ids_of", lambda: rooms.room_ids_of("user_7"))
    yield StoreCall("some_room_ids_of", lambda: rooms.some_room_ids_of("user_7"))
    yield StoreCall("membership_counts", lambda: rooms.membership_counts(users))
    yield StoreCall("member_page", lambda: rooms.member_page(room_id, 0, 50), UNSORTED)


def _position_calls(positions: PositionStore, room_id: str) -> Iterator[StoreCall]:
    others = [f"room_{number}" for number in range(1, 21)]
    yield StoreCall(
        "save", lambda: positions.save({room_id: {"search": 7, "mentions": 6}, "room_new": {"search": 1}}, NOW_MS)
    )
    yield StoreCall("touch", lambda: positions.touch(others[:3], NOW_MS))
    yield StoreCall("touched_since", lambda: positions.touched_since(NOW_MS - 20))
    yield StoreCall("positions", lambda: positions.positions(others, ["search", "mentions"]))
    yield StoreCall("checkpoints", lambda: positions.checkpoints([1, 2, 3]), whole=SMALL)
    yield StoreCall("save_checkpoints", lambda: positions.save_checkpoints([1, 2], NOW_MS + 1), whole=SMALL)


def _index_calls(index: IndexStore, room_id: str, messages: int) -> Iterator[StoreCall]:
    ids = [f"{room_id}_entry_{rev}" for rev in range(2, 22)]
    page = StoredPage(room_id, Page(0, 1), messages + 2, 2 * CHUNK, "", ids[0], NOW_MS)
    new = StoredPage("room_new", Page(0, 0), 1, 1, "", ids[0], NOW_MS)
    yield StoreCall("pages", lambda: index.pages([(room_id, Page(0, number)) for number in range(3)]))
    yield StoreCall("put_pages", lambda: index.put_pages([page, new]))
    yield StoreCall("replace_pages", lambda: index.replace_pages([(page._replace(rev=messages + 3), messages + 2)]))
    yield StoreCall("texts", lambda: index.texts(room_id, 1, CHUNK))
    yield StoreCall("texts", lambda: index.texts(OLD_ROOM, 1, OLD_MESSAGES), note="older than the log")
    yield StoreCall("messages", lambda: index.messages([*ids, f"{OLD_ROOM}_msg_1"]))
    yield StoreCall("places", lambda: index.places([*ids, f"{OLD_ROOM}_msg_1"]))
    yield StoreCall("remove_room", lambda: index.remove_room(DELETED_ROOM))


def _presence_calls(presence: PresenceStore, room_id: str) -> Iterator[StoreCall]:
    users = [f"user_{number}" for number in range(20)]
    yield StoreCall("renew", lambda: presence.renew("gateway_1", NOW_MS + 5, is_new=False), note="gateway")
    yield StoreCall("renew", lambda: presence.renew("gateway_new", NOW_MS + 5, is_new=True), note="gateway, new")
    yield StoreCall("users_of", lambda: presence.users_of("gateway_1", 3))
    yield StoreCall("change", lambda: presence.change("gateway_1", ["user_3"], ["user_1", "user_21"], NOW_MS))
    yield StoreCall("records", lambda: presence.records(users))
    yield StoreCall(
        "flag_new_members", lambda: presence.flag_new_members({(room_id, user_id): False for user_id in users})
    )
    yield StoreCall("has_valid_lease", lambda: presence.has_valid_lease(NOW_MS))
    yield StoreCall("claim_expired", lambda: presence.claim_expired(NOW_MS, "sweeper", NOW_MS + 10))
    yield StoreCall("extend_claim", lambda: presence.extend_claim("gateway_0", "sweeper", NOW_MS + 20))
    yield StoreCall("end", lambda: presence.end("gateway_0", NOW_MS - 1))
    yield StoreCall("renew", lambda: presence.renew("gateway_0", NOW_MS + 5, is_new=True), note="gateway, ended")
    yield StoreCall("claim_ended", lambda: presence.claim_ended(NOW_MS, "sweeper", NOW_MS + 10))
    yield StoreCall("forget", lambda: presence.forget("gateway_0"), note="gateway")


def _announcement_calls(announcements: AnnouncementStore, room_id: str) -> Iterator[StoreCall]:
    users = [f"user_{number}" for number in range(20)]
    records = [_record(user_id, online) for user_id, online in zip(users, [True, False] * 10, strict=True)]
    others = [f"room_{number}" for number in range(1, 21)]
    marked = [Membership(room_id, user_id, False) for user_id in users]
    yield StoreCall("hold_lease", lambda: announcements.hold_lease("chat_1", NOW_MS, NOW_MS + 5))
    yield StoreCall("has_pending", lambda: announcements.has_pending(NOW_MS + 100), UNSORTED)
    yield StoreCall("unannounced", lambda: announcements.unannounced(5), UNSORTED)
    yield StoreCall("memberships", lambda: announcements.memberships(users, 100))
    after = Membership("room_3", "user_7", False)
    yield StoreCall("memberships", lambda: announcements.memberships(["user_7"], 2, after=after), note="of one user")
    yield StoreCall("audiences", lambda: announcements.audiences(others))
    yield StoreCall("begin", lambda: announcements.begin("chat_1", users))
    yield StoreCall("set_flags", lambda: announcements.set_flags(marked[:10], marked[10:]))
    yield StoreCall("finish", lambda: announcements.finish(records, NOW_MS))
    yield StoreCall("add_pending_counts", lambda: announcements.add_pending_counts(dict.fromkeys(others, NOW_MS)))
    yield StoreCall("pending_counts", announcements.pending_counts, whole="all are read, once per takeover")
    yield StoreCall("active_now", lambda: announcements.active_now(others), note="of large rooms")
    yield StoreCall("counts_sent", lambda: announcements.counts_sent(others))


def _owner_calls(owners: OwnerStore) -> Iterator[StoreCall]:
    seen = OwnerRecord("chat_0", "queue_0", 1)
    yield StoreCall("owners", owners.owners, whole=SMALL)
    yield StoreCall("owner", lambda: owners.owner(3))
    yield StoreCall("replace", lambda: owners.replace(3, seen, "chat_1", "queue_1"), whole=SMALL)
    yield StoreCall("renew", lambda: owners.renew("chat_0"), note="replica")
    yield StoreCall("lease_age_s", lambda: owners.lease_age_s("chat_0"))
    yield StoreCall("end_lease", lambda: owners.end_lease("chat_0"))


def _record(user_id: str, is_online: bool) -> PresenceRecord:
    return PresenceRecord(
        user_id=user_id, is_online=is_online, announced_online=False, last_seen_at_ms=None, unannounced_since_ms=NOW_MS
    )


def calls_not_made(made: list[StoreCall]) -> set[str]:
    """Public methods of the stores that are not among the calls."""
    stores: tuple[type, ...] = (
        RoomStore,
        LogStore,
        MemberStore,
        MessageStore,
        PresenceStore,
        AnnouncementStore,
        OwnerStore,
        ProfileStore,
        SentMentionStore,
    )
    stores += (ProfileStore, PositionStore, IndexStore)
    methods = {
        name
        for store in stores
        for name, method in vars(store).items()
        if inspect.iscoroutinefunction(method) and not name.startswith("_")
    }
    within = {"set_online_flags", "memberships_of", "named_in", "with_previews"}  # made by other calls
    return methods - {call.name for call in made} - within


async def explained(uri: str, database: str, room_id: str, messages: int) -> tuple[list[QueryPlan], list[StoreCall]]:
    """Make all calls on the data of `fill` and return their plans and the calls."""
    listener = Listener()
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(uri, tz_aware=True, event_listeners=[listener])
    quiet: AsyncIOMotorClient[Document] = AsyncIOMotorClient(uri, tz_aware=True)
    plans: list[QueryPlan] = []
    made = list(calls(Stores.on(client[database]), room_id, messages))
    try:
        for call in made:
            listener.commands.clear()
            await call.run()
            seen: set[str] = set()
            for command in list(listener.commands):
                for title, explainable in _explainable(command):
                    plan = await explain(quiet[database], call, title, explainable)
                    if (key := f"{title} {plan.stages}") not in seen:  # keep one of several equal plans
                        seen.add(key)
                        plans.append(plan)
    finally:
        client.close()
        quiet.close()
    return plans, made


def _explainable(command: Document) -> Iterator[tuple[str, Document]]:
    """Return the commands to explain for a sent one; none for commands without a filter."""
    name, collection = next(iter(command.items()))
    match name:
        case "find" | "aggregate" | "findAndModify":
            fields = ("filter", "sort", "limit", "skip", "projection", "pipeline", "query", "update")
            kept = {field: command[field] for field in fields if field in command}
            yield f"{name} {collection}", {name: collection, **kept} | ({"cursor": {}} if name == "aggregate" else {})
        case "update" | "delete":
            for statement in command[f"{name}s"]:
                yield f"{name} {collection}", {"find": collection, "filter": statement["q"]}
        case "insert" | "getMore" | "endSessions":
            pass
        case _:
            raise AssertionError(f"what does {name} scan?")


async def explain(database: Database, call: StoreCall, title: str, command: Document) -> QueryPlan:
    """Return the plan of one command."""
    answer = await database.command({"explain": command, "verbosity": "executionStats"})
    root = answer if "queryPlanner" in answer else answer["stages"][0]["$cursor"]
    statistics = root["executionStats"]
    limits = [stage["$limit"] for stage in command.get("pipeline", []) if "$limit" in stage]
    limit = min([command.get("limit") or 2**31, *limits])
    return QueryPlan(
        call,
        title,
        tuple(_stages(root["queryPlanner"]["winningPlan"])),
        statistics["totalKeysExamined"],
        statistics["totalDocsExamined"],
        min(statistics["nReturned"], limit),
    )


def _stages(plan: Mapping[str, Any]) -> Iterator[str]:
    """Return the stage names from the last to the reading one; an index scan with its index."""
    if "queryPlan" in plan:  # MongoDB's second engine
        plan = plan["queryPlan"]
    if "stage" in plan:
        yield str(plan["stage"])
        if "indexName" in plan:
            yield str(plan["indexName"])
    for inner in [plan.get("inputStage"), *plan.get("inputStages", [])]:
        if inner is not None:
            yield from _stages(inner)
