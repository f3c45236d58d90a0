"""Message search on the real database: the index and the log, changes of messages, budgets, paging."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import pytest

from chat_service.follower.consumer import RoomBatch
from chat_service.follower.log_follower import SAVE_MS, LogFollower
from chat_service.follower.position_store import PositionStore
from chat_service.mentions.mention_notifier import MentionNotifier
from chat_service.mentions.sent_mention_store import SentMentionStore
from chat_service.rooms.changes import Edit, Erasure
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.rooms.room import Room
from chat_service.search.backfill import Backfill
from chat_service.search.global_search import GlobalSearch
from chat_service.search.index_store import IndexStore
from chat_service.search.indexer import GATHER_MS, ROWS_MAX, SearchIndexer
from chat_service.search.page_reader import Wanted
from chat_service.search.room_search import BUDGET, PAGES_PER_READ_MAX, Hits, RoomSearch
from chat_service.search.tree import CHUNK, FANOUT, Page, decompressed
from chat_service.search.words import matches, needles_of
from chat_service.storage.log_store import LogStore
from chat_service.storage.member_store import MemberStore
from chat_service.storage.message_store import MessageStore
from chat_service.storage.room_store import RoomStore
from shared.bus.bus import Bus
from shared.bus.topology import PARTITIONS
from shared.errors import Refusal
from shared.ids import Prefix, dated_id
from shared.mongo import Database
from tests.bench.plans import INDEXES, NOW_MS, a_message, a_room, an_entry
from tests.support.ready_database import ready_database
from tests.support.waiting import until, until_async

ROOM, OTHER = "room_a", "room_b"
GROUP = CHUNK * FANOUT
WORDS = ("euro", "dollar", "gold", "buy", "sell", "now", "later", "chart", "trend", "stop")
QUERIES = ("euro", "euro gold", "sel", "chart sell now", "rare", "nobody wrote", "lat")


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        yield database


class SearchWorld:
    """Rooms of one database, and an indexer that is given their entries."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.log, self.rooms, self.index = LogStore(database), RoomStore(database), IndexStore(database)
        self.now_ms = NOW_MS
        self.indexer = self.new_indexer()
        self.texts: dict[str, list[str | None]] = {}

    def new_indexer(self) -> SearchIndexer:
        """Return the indexer of another process."""
        return SearchIndexer(self.index, lambda: self.now_ms)

    async def write(self, room_id: str, texts: Sequence[str]) -> list[LogEntry]:
        """Append messages to a room. A message has the rev of its seq."""
        kept = self.texts.setdefault(room_id, [])
        made: list[LogEntry] = []
        for seq, text in enumerate(texts, len(kept) + 1):
            entry = a_message(room_id, seq)
            at_ms = NOW_MS + 10 * seq + (room_id == OTHER)
            assert entry.message is not None
            id_ = dated_id(Prefix.MESSAGE, at_ms, room_id)
            message = msgspec.structs.replace(
                entry.message, id=id_, text=text, created_at_ms=at_ms, client_message_id=None
            )
            made.append(msgspec.structs.replace(entry, id=id_, rev=seq, at_ms=at_ms, message=message))
        for start in range(0, len(made), 500):
            await self.log.insert(made[start : start + 500])
        kept += texts
        return made

    async def change(self, room_id: str, seq: int, text: str | None) -> LogEntry:
        """Edit a message, or delete it without a text, as its document and the log show it."""
        self.texts[room_id][seq - 1] = text
        message_id, rev = self.id_of(room_id, seq), 1_000_000 + len(self.texts[room_id]) + seq
        change = (
            Erasure(message_id=message_id, seq=seq) if text is None else Edit(message_id=message_id, seq=seq, text=text)
        )
        kind = EntryKind.ERASED if text is None else EntryKind.EDITED
        entry = an_entry(room_id, rev, kind, change=change)
        await self.log.insert([entry])
        await MessageStore(self.database).write_changes([entry])
        return entry

    def id_of(self, room_id: str, seq: int) -> str:
        return dated_id(Prefix.MESSAGE, NOW_MS + 10 * seq + (room_id == OTHER), room_id)

    async def follow(self, *entries: LogEntry, indexer: SearchIndexer | None = None) -> None:
        """Give consecutive entries of one room to an indexer."""
        await (indexer or self.indexer).take([RoomBatch(entries[0].room_id, entries)])

    def room(self, room_id: str) -> Room:
        seq = len(self.texts[room_id])
        return a_room(room_id, last_seq=seq, rev=seq, active_at_ms=NOW_MS + 10 * seq + 1, last_message_at_ms=NOW_MS)

    async def backfill(self, room_id: str) -> None:
        """Build all pages of a room that do not exist."""
        backfill = Backfill(self.database, self.rooms, self.log, self.index, lambda: range(PARTITIONS))
        await backfill.index_room(self.room(room_id))

    async def search(
        self, room_id: str, query: str, limit: int = 20, before: str | None = None, author: str | None = None
    ) -> Hits:
        wanted = Wanted(needles_of(query), author)
        return await RoomSearch(self.index, self.room(room_id), wanted, limit).run(before)

    async def pages_of(self, search: Callable[[str | None], "object"]) -> list[str]:
        """Follow `next` from page to page and return the ids found."""
        ids: list[str] = []
        before: str | None = None
        for _ in range(500):
            hits = await search(before)  # type: ignore[misc]
            ids += [message.id for message in hits.messages]
            if hits.next_before is None:
                return ids
            before = hits.next_before
        raise AssertionError("the search does not end")

    def expected(self, query: str, *room_ids: str) -> list[str]:
        """Return the ids of all messages that a query should find, newest first."""
        needles = needles_of(query)
        found = [
            self.id_of(room_id, seq)
            for room_id in room_ids
            for seq, text in enumerate(self.texts[room_id], 1)
            if text is not None and matches(needles, text)
        ]
        return sorted(found, reverse=True)

    async def indexed_words(self, room_id: str) -> str:
        """Return all words of a room that the index holds."""
        found = await self.database["message_words"].find({"roomId": room_id}).to_list(None)
        return "\n".join(decompressed(document["words"]) or "" for document in found)

    async def assert_found(self, room_id: str, limit: int = 7) -> None:
        for query in QUERIES:
            found = await self.pages_of(lambda before, q=query: self.search(room_id, q, limit, before))  # type: ignore[misc]
            assert found == self.expected(query, room_id), query


def random_texts(count: int, seed: int = 1) -> list[str]:
    chosen = random.Random(seed)
    texts = [" ".join(chosen.choices(WORDS, k=3)) for _ in range(count)]
    for number in range(0, count, max(count // 3, 1)):
        texts[number] += " rare"
    return texts


@pytest.fixture
async def world(database: Database) -> SearchWorld:
    return SearchWorld(database)


async def test_search_is_complete_whatever_is_indexed(world: SearchWorld) -> None:
    """Without an index, with pages here and there, and with all of them, the same messages are found, page by page."""
    count = GROUP + 3 * CHUNK + 50
    await world.write(ROOM, random_texts(count))
    for number in (2, 5, 17):
        await world.new_indexer()._builder.build_chunk(ROOM, Page(0, number), count, frozenset())
    await world.assert_found(ROOM, limit=40)
    await world.backfill(ROOM)
    assert await world.database["message_words"].count_documents({"roomId": ROOM}) == FANOUT + 4 + 1
    await world.assert_found(ROOM, limit=40)


async def test_live_messages_are_found_before_and_after_they_are_indexed(world: SearchWorld) -> None:
    texts = random_texts(2 * CHUNK + 10)
    for start in range(0, len(texts), 45):
        await world.follow(*await world.write(ROOM, texts[start : start + 45]))
        assert (await world.search(ROOM, "e", 1)).messages[0].text
    await world.assert_found(ROOM)
    await world.indexer.finish()
    await world.assert_found(ROOM)
    stored = await world.index.pages([(ROOM, Page(0, number)) for number in range(3)])
    assert [page.through for page in stored.values()] == [CHUNK, 2 * CHUNK, len(texts)]


async def test_lines_gather_until_there_are_enough_or_ten_seconds_are_over(world: SearchWorld) -> None:
    entries = await world.write(ROOM, random_texts(ROWS_MAX + 1))
    await world.follow(entries[0])
    assert await world.index.pages([(ROOM, Page(0, 0))]) == {}
    await world.follow(*entries[1:ROWS_MAX])
    assert (await world.index.pages([(ROOM, Page(0, 0))]))[ROOM, Page(0, 0)].through == ROWS_MAX
    await world.follow(entries[ROWS_MAX])
    world.now_ms += GATHER_MS
    await world.follow(*await world.write(OTHER, ["hello"]))
    assert (await world.index.pages([(ROOM, Page(0, 0))]))[ROOM, Page(0, 0)].through == ROWS_MAX + 1


async def test_lines_of_a_killed_process_are_built_by_the_next(world: SearchWorld) -> None:
    texts = random_texts(GROUP)
    entries = await world.write(ROOM, texts)
    await world.follow(*entries[:CHUNK])
    await world.follow(*entries[CHUNK : CHUNK + 5], indexer=world.new_indexer())  # dies with its lines
    after = world.new_indexer()
    await world.follow(*entries[CHUNK + 5 :], indexer=after)
    await after.finish()
    pages = [(ROOM, page) for page in (*Page(1, 0).children, Page(1, 0))]
    stored = await world.index.pages(pages)
    assert len(stored) == len(pages) and all(page.is_complete for page in stored.values())
    await world.assert_found(ROOM, limit=50)


async def test_repeated_entries_change_nothing(world: SearchWorld) -> None:
    entries = await world.write(ROOM, random_texts(60))
    for some in (entries, entries[20:], entries):
        await world.follow(*some, indexer=(indexer := world.new_indexer()))
        await indexer.finish()
    await world.assert_found(ROOM)
    assert (await world.indexed_words(ROOM)).count("\n") == 59


async def test_edited_message_is_found_by_its_present_words(world: SearchWorld) -> None:
    await world.write(ROOM, ["secretword first", *random_texts(GROUP - 1)])
    await world.backfill(ROOM)
    await world.follow(await world.change(ROOM, 1, "public second"))
    assert "secretword" not in await world.indexed_words(ROOM)
    assert [one.text for one in (await world.search(ROOM, "public second")).messages] == ["public second"]
    assert (await world.search(ROOM, "secretword")).messages == []


async def test_deleted_message_leaves_the_index_and_is_never_found(world: SearchWorld) -> None:
    entries = await world.write(ROOM, ["secretword first", *random_texts(GROUP - 1), "secretword again"])
    await world.follow(*entries)  # the last line is still in memory
    for seq in (1, GROUP + 1):
        deletion = await world.change(ROOM, seq, None)
        found = [one.text for one in (await world.search(ROOM, "secretword")).messages]
        assert found == (["secretword again"] if seq == 1 else [])  # before the index knows
        await world.follow(deletion)
    await world.indexer.finish()
    assert "secretword" not in await world.indexed_words(ROOM)


async def test_deletion_holds_while_the_document_still_shows_the_text(world: SearchWorld) -> None:
    """The owner was killed between the commit of the deletion and the change of the message's document."""
    await world.write(ROOM, ["secretword first", "second"])
    await world.backfill(ROOM)
    deletion = await world.change(ROOM, 1, None)
    change = {"$set": {"text": "secretword first"}, "$unset": {"deletedAtMs": "", "shown": ""}}
    await world.database["room_log"].update_one({"_id": world.id_of(ROOM, 1)}, change)
    await world.follow(deletion)
    assert "secretword" not in await world.indexed_words(ROOM)


async def test_slow_writer_cannot_bring_deleted_words_back(world: SearchWorld) -> None:
    await world.write(ROOM, ["secretword first", "second"])
    stale = await world.indexer._builder.build_chunk(ROOM, Page(0, 0), 2, frozenset())
    assert stale is not None and stale.words is not None and "secretword" in stale.words
    await world.follow(await world.change(ROOM, 1, None))
    await world.index.put_pages([stale])
    await world.index.replace_pages([(stale._replace(rev=3), 2)])
    assert "secretword" not in await world.indexed_words(ROOM)


async def test_deleted_room_leaves_no_words(world: SearchWorld) -> None:
    entries = await world.write(ROOM, random_texts(CHUNK + 5))
    await world.follow(*await world.write(OTHER, random_texts(ROWS_MAX)))
    await world.follow(*entries)
    await world.follow(an_entry(ROOM, 1_000, EntryKind.DELETED))
    await world.indexer.finish()
    assert await world.indexed_words(ROOM) == ""
    assert await world.indexed_words(OTHER) != ""


async def test_author_restricts_the_search(world: SearchWorld) -> None:
    await world.write(ROOM, ["euro"] * 250)
    await world.backfill(ROOM)
    hits = await world.search(ROOM, "euro", author="user_7")
    assert [message.user_id for message in hits.messages] == ["user_7"] * 3


async def test_call_is_bounded_and_says_where_it_goes_on(world: SearchWorld) -> None:
    """Two frequent words never meet: a call looks at a bounded number of pages and finds nothing."""
    texts = ["euro chart" if number % 2 else "gold trend" for number in range(5 * GROUP)]
    await world.write(ROOM, texts)
    await world.backfill(ROOM)
    search = RoomSearch(world.index, world.room(ROOM), Wanted(needles_of("euro gold")), 20)
    hits = await search.run(None)
    assert hits.messages == [] and hits.next_before is not None
    assert search._reader.spent <= BUDGET + PAGES_PER_READ_MAX
    found = await world.pages_of(lambda before: world.search(ROOM, "euro gold", 20, before))
    assert found == []


async def test_word_that_nobody_wrote_costs_a_page_for_each_part_of_the_room(world: SearchWorld) -> None:
    await world.write(ROOM, random_texts(5 * GROUP))
    await world.backfill(ROOM)
    search = RoomSearch(world.index, world.room(ROOM), Wanted(needles_of("unwritten x")), 20)
    assert await search.run(None) == Hits([], None)
    assert search._reader.spent == 5


async def test_before_has_to_be_a_message_of_the_room(world: SearchWorld) -> None:
    await world.write(ROOM, ["euro"])
    await world.write(OTHER, ["euro"])
    for before in (world.id_of(OTHER, 1), "msg_unknown"):
        with pytest.raises(Refusal, match="no such message"):
            await world.search(ROOM, "euro", before=before)


async def test_messages_from_before_the_log_are_found(world: SearchWorld) -> None:
    old = [
        {
            "_id": dated_id(Prefix.MESSAGE, seq, "old"),
            "roomId": ROOM,
            "seq": seq,
            "userId": "ann",
            "user": {},
            "text": f"euro {seq}",
            "createdAtMs": seq,
        }
        for seq in range(1, 301)
    ]
    await world.database["messages"].insert_many(old)
    room = a_room(ROOM, last_seq=300, rev=300, old_seq=300)
    search = RoomSearch(world.index, room, Wanted(needles_of("euro 299")), 20)
    assert [one.text for one in (await search.run(None)).messages] == ["euro 299"]
    backfill = Backfill(world.database, world.rooms, world.log, world.index, lambda: range(PARTITIONS))
    await backfill.index_room(room)
    search = RoomSearch(world.index, room, Wanted(needles_of("euro 1")), 200)
    assert len((await search.run(None)).messages) == 111


async def test_backfill_runs_once_for_all_rooms(world: SearchWorld) -> None:
    await world.write(ROOM, random_texts(10))
    await world.write(OTHER, random_texts(10))
    await world.rooms.put_rooms([world.room(ROOM), world.room(OTHER)])
    backfill = Backfill(world.database, world.rooms, world.log, world.index, lambda: range(PARTITIONS))
    await backfill.run()
    assert await world.indexed_words(ROOM) and await world.indexed_words(OTHER)
    await world.index.remove_room(ROOM)
    await backfill.run()
    assert await world.indexed_words(ROOM) == ""


async def test_global_search_merges_rooms_by_time(world: SearchWorld) -> None:
    await world.write(ROOM, random_texts(2 * CHUNK + 7, seed=1))
    await world.write(OTHER, random_texts(CHUNK + 90, seed=2))
    rooms = [world.room(ROOM), world.room(OTHER)]

    async def found(query: str, limit: int) -> list[str]:
        wanted = Wanted(needles_of(query))
        return await world.pages_of(lambda before: GlobalSearch(world.index, rooms, wanted, limit).run(before))

    for _ in range(2):
        for query in QUERIES:
            assert await found(query, 13) == world.expected(query, ROOM, OTHER), query
        await world.backfill(ROOM)


async def test_global_search_of_many_rooms_always_advances(world: SearchWorld) -> None:
    names = [f"room_{number}" for number in range(200)]
    for name in names:
        await world.write(name, ["euro now", "gold later"])
    rooms = [world.room(name) for name in names]
    wanted = Wanted(needles_of("euro"))
    found = await world.pages_of(lambda before: GlobalSearch(world.index, rooms, wanted, 30).run(before))
    assert sorted(found) == sorted(world.expected("euro", *names))


async def test_global_search_refuses_an_invalid_message_id(world: SearchWorld) -> None:
    with pytest.raises(Refusal, match="no such message"):
        await GlobalSearch(world.index, [], Wanted(needles_of("euro")), 20).run("nonsense")


async def test_next_owner_hands_over_what_a_killed_one_left_in_a_silent_room(world: SearchWorld) -> None:
    positions = PositionStore(world.database)

    def follower() -> LogFollower:
        return LogFollower(world.log, world.rooms, positions, [world.new_indexer()], lambda: world.now_ms)

    first, second = follower(), follower()
    terms = dict.fromkeys(range(PARTITIONS), 1)
    entries = await world.write(ROOM, random_texts(CHUNK))
    await first.step(terms)
    first.note(entries)
    await first.step(terms)
    world.now_ms += SAVE_MS
    await first.step(terms)
    assert await world.indexed_words(ROOM) != ""
    assert await positions.positions([ROOM], ["search"]) == {ROOM: {"search": CHUNK}}
    deletion = an_entry(ROOM, CHUNK + 1, EntryKind.DELETED)
    await first.touch([deletion])
    await world.log.insert([deletion])  # and dies: nobody notes it
    world.now_ms += 3_600_000
    await second.step({number: 2 for number in terms})
    assert await world.indexed_words(ROOM) == ""


async def test_consumer_without_its_service_does_not_hold_up_the_index(world: SearchWorld) -> None:
    database = world.database
    bus = Bus("amqp://nobody.invalid", "node")  # notifier cannot be asked
    grants = SentMentionStore(database)
    mentions = MentionNotifier(MemberStore(database), MessageStore(database), grants, bus, lambda: world.now_ms)
    positions = PositionStore(database)
    follower = LogFollower(world.log, world.rooms, positions, [mentions, world.indexer], lambda: world.now_ms)
    running = asyncio.create_task(follower.run(lambda: dict.fromkeys(range(PARTITIONS), 1)))
    try:
        entries = await world.write(ROOM, ["oldword first", "naming ben"])
        mark = {"_id": f"{world.id_of(ROOM, 2)}/ben", "userId": "ben"}
        await database["message_mentions"].insert_one(mark)
        follower.note([*entries, await world.change(ROOM, 1, "newword first")])
        await until_async(lambda: world.indexed_words(ROOM), lambda words: "newword" in words)
        follower.note([await world.change(ROOM, 2, None)])
        await until_async(lambda: world.indexed_words(ROOM), lambda words: "naming" not in words)
        world.now_ms += 2_000
        await until(lambda: follower.lag_s() == 2.0)
    finally:
        running.cancel()
