"""The migration from 0.2, on the real database.

The embedded database supports validators (`collMod`, strict and moderate), so the fence is tested as it is in MongoDB.
It cannot show a user without the right to `collMod`, because it has no access control, nor a read concern that
hides writes, because it is not a replica set.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import BulkWriteError
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from chat_service.people.presence import Presence, PresenceTimes
from chat_service.people.presence_store import PresenceStore
from chat_service.queries import ChatQueryHandler
from chat_service.rooms.log import EntryKind
from chat_service.search.message_search import MessageSearch
from chat_service.storage import migration
from chat_service.storage.migration import Migration
from chat_service.storage.purge import purge_deleted_rooms
from chat_service.storage.room_store import RoomStore
from shared.bus.bus import Bus
from shared.commands.chat_queries import (
    GetRoom,
    ListMembers,
    ListMessages,
    MemberPage,
    MessagePage,
    ReplayedEntries,
    ReplayEntries,
)
from shared.commands.chat_views import RoomView
from shared.commands.command import Caller
from shared.errors import ErrorCode, Refusal
from shared.mongo import Database, Document
from tests.bench.plans import INDEXES
from tests.support.chat_world import PRIVATE, PUBLIC, Act, ChatWorld, Turn, ack_in
from tests.support.old_database import (
    DELETED,
    DELETED_MESSAGES,
    LOST,
    PRIVATE_MESSAGES,
    PUBLIC_MESSAGES,
    OldDatabase,
    old_member,
    old_message,
    old_messages,
    old_room,
)
from tests.support.ready_database import ready_database
from tests.support.waiting import until_async

VALIDATION_FAILED = 121
COMMANDS_MAX = 200
NEW_COLLECTIONS = ("room_records", "room_members", "room_log")
NOTHING: dict[str, list[Document]] = {name: [] for name in NEW_COLLECTIONS}


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        yield database


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration, "BATCH", 3)
    monkeypatch.setattr(migration, "ROOMS_AT_ONCE", 2)
    monkeypatch.setattr(migration, "LEASE_WATCH_S", 0.5)
    monkeypatch.setattr(migration, "RETRY_S", 0.01)


@dataclass
class Chat:
    """The new chat_service on a database of 0.2."""

    database: Database
    world: ChatWorld
    old: OldDatabase
    handler: ChatQueryHandler

    @classmethod
    async def on(cls, database: Database) -> "Chat":
        world = ChatWorld(database)
        old = OldDatabase(database, public=world.rooms[PUBLIC], private=world.rooms[PRIVATE])
        await old.fill()
        bus = Bus("amqp://nobody.invalid", "node")
        presence = Presence(PresenceStore(database), bus, "node", lambda: world.now_ms, PresenceTimes(), lambda: None)
        handler = ChatQueryHandler(
            world.store, world.messages, world.room_log, presence, MessageSearch(world.index), lambda: world.now_ms
        )
        return cls(database, world, old, handler)

    async def room(self, user_id: str, room_id: str) -> RoomView:
        view = await self.handler.answer(GetRoom(**head(user_id), room_id=room_id))
        assert isinstance(view, RoomView)
        return view

    async def messages(self, user_id: str, room_id: str, limit: int, page: int = 1) -> MessagePage:
        found = await self.handler.answer(ListMessages(**head(user_id), room_id=room_id, page=page, limit=limit))
        assert isinstance(found, MessagePage)
        return found

    async def member_ids(self, user_id: str, room_id: str) -> list[str]:
        found = await self.handler.answer(ListMembers(**head(user_id), room_id=room_id, page=1, limit=50))
        assert isinstance(found, MemberPage)
        assert found.total == len(found.items)
        return [member.user_id for member in found.items]

    async def error_of(self, act: Act) -> ErrorCode | None:
        """Return the error of a command, or None if it was done."""
        await self.world.take(Turn((act,)))
        error = self.world.recorder.replies[self.world.asked[-1]].error
        return None if error is None else ErrorCode(error.code)


@pytest.fixture
async def chat(database: Database) -> AsyncIterator[Chat]:
    chat = await Chat.on(database)
    yield chat
    await chat.world.end()


@pytest.fixture
async def migrated(chat: Chat) -> Chat:
    await migrate(chat.database)
    return chat


def head(user_id: str) -> dict[str, Any]:
    return {"id": "query", "deadline_ms": 0, "caller": Caller(user_id=user_id)}


async def migrate(database: Database) -> None:
    await asyncio.wait_for(Migration(database, RoomStore(database)).run(), 30)


async def dump(database: Database) -> dict[str, list[Document]]:
    return {name: await database[name].find().sort("_id", 1).to_list(None) for name in NEW_COLLECTIONS}


async def is_done(database: Database) -> bool:
    return bool((await database["migrations"].find_one({}) or {}).get("done"))


# Migrated data --------------------------------------------------------------------------------------------------------


async def test_public_room_keeps_counts_and_read_marks(migrated: Chat) -> None:
    views = {user_id: await migrated.room(user_id, migrated.old.public) for user_id in ("ann", "ben", "cat", "dan")}
    assert {(view.name, view.description, view.last_seq, view.member_count) for view in views.values()} == {
        ("FX Traders", "Talk about pairs", PUBLIC_MESSAGES, 3)
    }
    # The record of the room knew 7 messages; ann sent the 12th and ben the 11th.
    assert {user_id: view.unread_count for user_id, view in views.items()} == {"ann": 0, "ben": 1, "cat": 0, "dan": 9}
    assert [user_id for user_id, view in views.items() if view.is_member] == ["ann", "ben", "dan"]
    assert await migrated.member_ids("ann", migrated.old.public) == ["ann", "ben", "dan"]
    assert {view.active_now for view in views.values()} == {1}
    assert {view.last_message_at for view in views.values()} == {"1970-01-01T00:06:40.012Z"}


async def test_private_room_is_shown_to_its_members_only(migrated: Chat) -> None:
    private = migrated.old.private
    assert [(await migrated.room(user_id, private)).unread_count for user_id in ("ann", "ben")] == [1, 2]
    assert (await migrated.room("ann", private)).member_count == 2
    for user_id in ("cat", "dan", "eve"):
        with pytest.raises(Refusal) as refusal:
            await migrated.room(user_id, private)
        assert refusal.value.code is ErrorCode.NOT_FOUND


async def test_direct_room_keeps_its_users(migrated: Chat) -> None:
    view = await migrated.room("ben", migrated.old.direct)
    assert (view.direct_user_ids, view.last_seq, view.member_count) == (("ann", "ben"), 3, 2)
    assert (await migrated.room("ann", migrated.old.direct)).unread_count == 1


async def test_members_of_deleted_and_lost_rooms_are_left_out(migrated: Chat) -> None:
    kept = await migrated.database["room_members"].distinct("roomId")
    assert not {DELETED, LOST} & set(kept)
    assert LOST not in await migrated.database["room_records"].distinct("_id")


# Continued use --------------------------------------------------------------------------------------------------------


async def test_log_continues_after_the_last_old_message(migrated: Chat) -> None:
    sends = (Act("send", PUBLIC, "ann", "new"), Act("join", PUBLIC, "eve"), Act("send", PUBLIC, "dan"))
    await migrated.world.take(Turn(sends))
    entries = await migrated.world.room_log.after(migrated.old.public, 0)
    last = PUBLIC_MESSAGES
    assert [(entry.rev, entry.last_seq) for entry in entries] == [(last + 1, 13), (last + 2, 13), (last + 3, 14)]
    assert entries[-1].member_count == 4
    pages = [await migrated.messages("ann", migrated.old.public, 5, page) for page in (1, 2, 3)]
    assert {page.total for page in pages} == {14}
    assert [item.seq for page in pages for item in page.items] == list(range(14, 0, -1))
    assert [item.message for page in pages for item in page.items][2:] == [
        f"old text {seq}" for seq in range(12, 0, -1)
    ]


async def test_old_messages_are_replayed_as_entries(migrated: Chat) -> None:
    room = migrated.old.public
    for _ in range(3):
        await migrated.world.take(Turn((Act("send", PUBLIC, "ann"),)))
    one = {"roomId": room, "seq": 2}
    await migrated.database["messages"].update_one(one, {"$set": {"text": "edited", "editedAtMs": 5, "shown": 13}})
    for after, through in ((0, 100), (0, PUBLIC_MESSAGES), (3, 14), (PUBLIC_MESSAGES, 100)):
        query = ReplayEntries(**head("system:gateway"), room_id=room, after=after, through=through)
        found = await migrated.handler.answer(query)
        assert isinstance(found, ReplayedEntries)
        frames = [json.loads(entry.frame) for entry in found.entries]
        last = min(through, PUBLIC_MESSAGES + 3)
        assert [entry.rev for entry in found.entries] == list(range(after + 1, last + 1))
        assert [(frame["type"], frame["data"]["rev"], frame["data"]["seq"]) for frame in frames] == [
            ("chat:message", rev, rev) for rev in range(after + 1, last + 1)
        ]
        assert after or frames[1]["data"]["message"] == "edited"


async def test_quiet_room_begins_at_one(migrated: Chat) -> None:
    migrated.world.rooms = ("room_quiet_1", migrated.old.private)
    assert await migrated.error_of(Act("send", PUBLIC, "eve")) is None
    assert [entry.rev for entry in await migrated.world.room_log.after("room_quiet_1", 0)] == [1]
    assert (await migrated.room("ann", "room_quiet_1")).member_count == 2


@pytest.mark.parametrize("user_id", ["ann", "ben"])
async def test_old_client_message_id_is_used_up_for_its_sender(migrated: Chat, user_id: str) -> None:
    await migrated.world.take(Turn((Act("send", PUBLIC, user_id, "old10"),)))
    ack = ack_in(migrated.world.recorder.replies[migrated.world.asked[-1]])
    assert ack is not None
    log = await migrated.world.room_log.after(migrated.old.public, 0)
    if user_id == "ann":
        assert (ack.repeated, ack.message.seq, ack.message.message) == (True, 10, "old text 10")
        assert log == []
    else:
        assert (ack.repeated, ack.message.seq) == (False, 13)
        assert len(log) == 1


async def test_old_message_that_lost_its_room_repeats_nothing(chat: Chat) -> None:
    """0.2 stores messages before their room, and was killed in between: no sender received an acknowledgement."""
    await chat.old.insert_messages([old_message(LOST, 4, "lost")])
    await migrate(chat.database)
    chat.world.rooms = (LOST, chat.old.private)
    await chat.world.take(Turn((Act("create", PUBLIC, "ann"), Act("send", PUBLIC, "ann"))))
    owner, body = chat.world.route, chat.world.body(Act("send", PUBLIC, "ann", "lost"))
    assert owner is not None
    body.copies = 1  # a resent command is looked up by its clientMessageId
    chat.world.send(body, owner)
    assert await chat.world.answered(body, owner)
    acks = [ack_in(chat.world.recorder.replies[id_]) for id_ in chat.world.asked[1:]]
    assert [ack and (ack.message.seq, ack.repeated) for ack in acks] == [(1, False), (2, False)]


async def test_former_member_may_come_back_and_removed_one_may_not(migrated: Chat) -> None:
    assert await migrated.error_of(Act("join", PRIVATE, "dan")) is ErrorCode.NOT_FOUND
    assert await migrated.error_of(Act("send", PRIVATE, "dan")) is ErrorCode.NOT_FOUND
    assert await migrated.error_of(Act("join", PRIVATE, "cat")) is None
    assert (await migrated.room("cat", migrated.old.private)).member_count == 3
    assert await migrated.error_of(Act("add", PRIVATE, "dan")) is None
    assert await migrated.member_ids("dan", migrated.old.private) == ["ann", "ben", "cat", "dan"]


async def test_former_member_of_public_room_is_not_invited_to_it(migrated: Chat) -> None:
    assert await migrated.database["room_members"].find_one({"roomId": migrated.old.public, "userId": "cat"}) is None


async def test_purge_erases_old_messages(migrated: Chat) -> None:
    """One room was deleted by 0.2, the other one is deleted now."""
    assert await migrated.error_of(Act("send", PRIVATE, "ben", "new")) is None
    assert await migrated.error_of(Act("delete", PRIVATE, "ann")) is None
    world, messages, gone = migrated.world, migrated.database["messages"], {"$in": [DELETED, migrated.old.private]}
    assert await messages.count_documents({"roomId": gone}) == DELETED_MESSAGES + PRIVATE_MESSAGES
    purge = asyncio.create_task(
        purge_deleted_rooms(world.store, world.messages, world.room_log, world.index, lambda: world.now_ms)
    )
    due = {"purgeDueMs": {"$gt": world.now_ms}}
    await until_async(lambda: migrated.database["room_records"].count_documents(due), lambda count: count == 2)
    purge.cancel()
    assert await messages.count_documents({"roomId": gone}) == 0
    assert await messages.count_documents({"roomId": migrated.old.public}) == PUBLIC_MESSAGES
    assert await migrated.database["room_members"].count_documents({"roomId": gone}) == 0
    entries = await world.room_log.after(migrated.old.private, 0)
    assert [(entry.rev, entry.kind) for entry in entries] == [(6, EntryKind.MESSAGE), (7, EntryKind.DELETED)]
    assert entries[0].message is not None
    assert entries[0].message.text == ""


# Old processes --------------------------------------------------------------------------------------------------------


async def test_migration_waits_while_an_old_lease_is_renewed(chat: Chat) -> None:
    await chat.old.renew_lease("killed", 1)
    renewing = asyncio.create_task(chat.old.keep_lease("living", 0.05))
    migrating = asyncio.create_task(migrate(chat.database))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(migrating), 3 * migration.LEASE_WATCH_S)
    assert await dump(chat.database) == NOTHING
    await chat.old.insert_messages([old_message(chat.old.public, PUBLIC_MESSAGES + 1)])
    renewing.cancel()
    await migrating
    assert (await chat.room("ann", chat.old.public)).last_seq == PUBLIC_MESSAGES + 1


async def test_first_rooms_of_a_living_old_process_are_not_taken_for_a_new_database(database: Database) -> None:
    old = OldDatabase(database, public="room_1", private="room_2")
    renewing = asyncio.create_task(old.keep_lease("living", 0.05))
    await until_async(lambda: database["nodes"].count_documents({}), bool)
    migrating = asyncio.create_task(migrate(database))
    await asyncio.sleep(migration.LEASE_WATCH_S)
    await old.fill()
    renewing.cancel()
    await migrating
    assert await database["room_records"].count_documents({}) == 7


LateWrite = Callable[[OldDatabase], Awaitable[None]]


@pytest.mark.parametrize(
    "write",
    [
        lambda old: old.insert_messages([old_message(old.public, PUBLIC_MESSAGES + 1)]),
        lambda old: old.put_member(old_member(old.private, "ben", 3, active=False)),
        lambda old: old.put_member(old_member(old.public, "eve", 12)),
        lambda old: old.put_read_mark(old_member(old.private, "ben", 3), 5),
        lambda old: old.put_room(old_room(old.public, "private", 7, 5)),
        lambda old: old.put_room(old_room("room_new", "public", 0, 1) | {"version": 0}),
        lambda old: old.advance_room(old_room(old.public, "public", 7, 5)),
    ],
    ids=["message", "membership", "new membership", "read mark", "room", "new room", "head"],
)
async def test_write_of_a_thawed_old_process_is_refused(migrated: Chat, write: LateWrite) -> None:
    with pytest.raises(BulkWriteError) as error:
        await write(migrated.old)
    assert {failure["code"] for failure in error.value.details["writeErrors"]} == {VALIDATION_FAILED}


async def test_old_messages_can_be_changed_and_deleted(migrated: Chat) -> None:
    messages = migrated.database["messages"]
    one = {"roomId": migrated.old.public, "seq": 1}
    assert (await messages.update_one(one, {"$set": {"text": "redacted"}})).modified_count == 1
    assert (await messages.delete_many({"roomId": DELETED})).deleted_count == DELETED_MESSAGES
    newest = await migrated.messages("ann", migrated.old.public, PUBLIC_MESSAGES)
    assert newest.items[-1].message == "redacted"


# Interruptions --------------------------------------------------------------------------------------------------------


class Killer(CommandListener):
    """Cancels a task when its client sends the command number `after`, whose outcome the task never learns."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    def started(self, event: CommandStartedEvent) -> None:
        self.left -= 1
        if self.left == 0 and self.task is not None:
            self._loop.call_soon_threadsafe(self.task.cancel)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


async def migrate_until(uri: str, name: str, after: int) -> bool:
    """Migrate in a process that dies at its command number `after`. Returns whether it did."""
    killer = Killer(after)
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(uri, event_listeners=[killer], w="majority")
    killer.task = asyncio.create_task(migrate(client[name]))
    with suppress(asyncio.CancelledError):
        await killer.task
    client.close()
    return killer.task.cancelled()


async def test_migration_killed_at_any_command_continues(mongodb_uri: str, database_name: str, chat: Chat) -> None:
    await migrate(chat.database)
    whole = await dump(chat.database)
    for after in range(1, COMMANDS_MAX):
        await asyncio.gather(*(chat.database[name].delete_many({}) for name in (*NEW_COLLECTIONS, "migrations")))
        was_killed = await migrate_until(mongodb_uri, database_name, after)
        await migrate(chat.database)
        assert await dump(chat.database) == whole
        if not was_killed:
            break
    assert 20 < after < COMMANDS_MAX - 1


async def test_two_migrations_at_once_do_the_same(chat: Chat) -> None:
    await migrate(chat.database)
    whole = await dump(chat.database)
    for _ in range(5):
        await asyncio.gather(*(chat.database[name].delete_many({}) for name in (*NEW_COLLECTIONS, "migrations")))
        await asyncio.gather(migrate(chat.database), migrate(chat.database))
        assert await dump(chat.database) == whole


@pytest.mark.parametrize("is_slow", [False, True], ids=["again", "slow"])
async def test_later_changes_are_not_overwritten(migrated: Chat, is_slow: bool) -> None:
    """The slow one began before the other was done, and copies everything after it."""
    changes = (Act("leave", PUBLIC, "dan"), Act("remove", PRIVATE, "ben"), Act("send", PUBLIC, "ann"))
    await migrated.world.take(Turn(changes))
    owner = migrated.world.route
    assert owner is not None
    await owner.partition.stop()
    before = await dump(migrated.database)
    if is_slow:
        await migrated.database["migrations"].delete_many({})
    await migrate(migrated.database)
    assert await dump(migrated.database) == before
    assert len(before["room_log"]) == 3


async def test_new_database_is_done_at_once(database: Database) -> None:
    await migrate(database)
    assert await is_done(database)
    assert not {"rooms", "members"} & set(await database.list_collection_names())
    await database["rooms"].insert_one(old_room("room_1", "public", 0, 1))
    await migrate(database)
    assert await dump(database) == NOTHING


async def test_room_with_more_unrecorded_messages_than_a_batch_is_read_in_pages(chat: Chat) -> None:
    more = old_messages(chat.old.private, 40)[PRIVATE_MESSAGES:]
    await chat.old.insert_messages(more)
    await migrate(chat.database)
    view = await chat.room("ben", chat.old.private)
    assert (view.last_seq, view.unread_count) == (40, 1)
