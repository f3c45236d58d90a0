"""The pages of the search index after any order of sends, edits, deletions, turns of the follower and deaths."""

import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_service.follower.consumer import RoomBatch
from chat_service.rooms.changes import Edit, Erasure
from chat_service.rooms.log import EntryKind, LogEntry
from chat_service.search.index_store import IndexStore
from chat_service.search.indexer import GATHER_MS, ROWS_MAX, SearchIndexer
from chat_service.search.tree import CHUNK, FANOUT, IndexedText, Page, StoredPage, chunk_from, chunk_of, merged
from chat_service.storage.log_store import LogStore
from chat_service.storage.message_store import MessageStore
from shared.mongo import Database, chunks
from tests.bench.plans import INDEXES, NOW_MS, a_message, an_entry
from tests.support.ready_database import ready_database

GROUP = CHUNK * FANOUT
_examples = itertools.count(1)


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[Database]:
    async with ready_database(mongodb_uri, database_name, INDEXES) as database:
        yield database


@dataclass
class IndexedRoom:
    """A room, its log, and how many of its entries the indexer was given."""

    id: str
    entries: list[LogEntry] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    handed: int = 0
    saved: int = 0

    def send(self, count: int) -> list[LogEntry]:
        return [self._next(self._message(len(self.texts) + 1)) for _ in range(count)]

    def _message(self, seq: int) -> LogEntry:
        entry = a_message(self.id, seq)
        assert entry.message is not None
        self.texts.append(f"word{seq} said")
        message = msgspec.structs.replace(
            entry.message, id=self.id_of(seq), text=self.texts[-1], created_at_ms=NOW_MS + seq, client_message_id=None
        )
        return msgspec.structs.replace(entry, id=message.id, at_ms=NOW_MS + seq, message=message)

    def change(self, seq: int, *, deletes: bool) -> list[LogEntry]:
        """Edit or delete a message, unless it is deleted."""
        if self.texts[seq - 1] is None:
            return []
        rev = len(self.entries) + 1
        self.texts[seq - 1] = None if deletes else f"edited{rev} said"
        text, message_id = self.texts[seq - 1], self.id_of(seq)
        if text is None:
            erasure = Erasure(message_id=message_id, seq=seq)
            return [self._next(an_entry(self.id, rev, EntryKind.ERASED, change=erasure))]
        edit = Edit(message_id=message_id, seq=seq, text=text)
        return [self._next(an_entry(self.id, rev, EntryKind.EDITED, change=edit))]

    def _next(self, entry: LogEntry) -> LogEntry:
        self.entries.append(msgspec.structs.replace(entry, rev=len(self.entries) + 1))
        return self.entries[-1]

    def id_of(self, seq: int) -> str:
        return f"{self.id}_message_{seq}"

    def page_from_scratch(self, stored: StoredPage) -> StoredPage:
        """Return what a page should be, given how far it goes."""
        if stored.page.level > 0:
            children = [stored._replace(page=page, through=page.last_seq) for page in stored.page.children]
            return merged(stored.page, stored.rev, [self.page_from_scratch(child) for child in children])
        seqs = range(stored.page.first_seq, stored.through + 1)
        messages = [IndexedText(self.id_of(seq), seq, "user_0", NOW_MS + seq, self.texts[seq - 1]) for seq in seqs]
        authors = [entry.message.user_id for entry in self.entries if entry.message is not None]
        messages = [one._replace(user_id=authors[one.seq - 1]) for one in messages]
        return chunk_from(self.id, stored.page, stored.rev, messages)


class IndexedRooms:
    """Two rooms of one example, and the indexer of their owner."""

    def __init__(self, database: Database) -> None:
        number = next(_examples)
        self.rooms = [IndexedRoom(f"room_{number}_{index}") for index in range(2)]
        self.log, self.messages, self.index = LogStore(database), MessageStore(database), IndexStore(database)
        self.words = database["message_words"]
        self.now_ms = NOW_MS
        self.start()

    def start(self) -> None:
        """Restart the process: rows in memory are lost, and entries are delivered again from the saved position on."""
        self.indexer = SearchIndexer(self.index, lambda: self.now_ms)
        for room in self.rooms:
            room.handed = room.saved

    async def commit(self, entries: Sequence[LogEntry]) -> None:
        for some in chunks(entries, 500):
            await self.log.insert(some)
        await self.messages.write_changes(entries)

    async def turn(self) -> None:
        """Hand over what was committed since the last turn."""
        batches = [RoomBatch(room.id, room.entries[room.handed :]) for room in self.rooms]
        await self.indexer.take([batch for batch in batches if batch.entries])
        for room in self.rooms:
            room.handed = len(room.entries)

    async def end(self) -> None:
        await self.turn()
        await self.indexer.finish()

    async def pages(self, room: IndexedRoom) -> list[StoredPage]:
        last = chunk_of(max(len(room.texts), 1)).number
        chunks_ = [Page(0, number) for number in range(last + 1)]
        above = [Page(1, number) for number in range(last // FANOUT + 1)]
        found = await self.index.pages([(room.id, page) for page in [*chunks_, *above]])
        assert len(found) == await self.words.count_documents({"roomId": room.id})
        return list(found.values())

    async def assert_pages_are_those_from_scratch(self, *, are_whole: bool = True) -> None:
        for room in self.rooms:
            stored = await self.pages(room)
            for page in stored:
                assert page == room.page_from_scratch(page)
            if are_whole:
                through = {page.page: page.through for page in stored}
                wanted = {chunk_of(seq): seq for seq in range(1, len(room.texts) + 1)}
                assert {page: seq for page, seq in through.items() if page.level == 0} == wanted


acts = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 1), st.sampled_from((1, 2, 3, ROWS_MAX, CHUNK))),
    st.tuples(st.just("change"), st.integers(0, 1), st.integers(1, 12), st.booleans()),
    st.tuples(st.just("turn")),
    st.tuples(st.sampled_from(("wait", "save"))),
)
bounded = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def carry_out(world: IndexedRooms, act: tuple[object, ...]) -> None:
    match act:
        case ("send", int(index), int(count)):
            await world.commit(world.rooms[index].send(count))
        case ("change", int(index), int(place), bool(deletes)):
            room = world.rooms[index]
            if room.texts:  # old messages, and the newest
                seq = max(len(room.texts) - place // 2, 1) if place % 2 else min(place, len(room.texts))
                await world.commit(room.change(seq, deletes=deletes))
        case ("wait",):
            world.now_ms += GATHER_MS
        case ("save",):
            for room in world.rooms:
                room.saved = room.handed
        case ("die",):
            world.start()
        case _:
            await world.turn()


@bounded
@given(plan=st.lists(acts, min_size=3, max_size=25), before=st.sampled_from((0, CHUNK - 3)))
async def test_pages_are_those_built_from_scratch(
    database: Database, plan: list[tuple[object, ...]], before: int
) -> None:
    world = IndexedRooms(database)
    await world.commit(world.rooms[0].send(before))
    for act in plan:
        await carry_out(world, act)
    await world.end()
    await world.assert_pages_are_those_from_scratch()


@bounded
@given(plan=st.lists(st.one_of(acts, st.tuples(st.just("die"))), min_size=3, max_size=25))
async def test_pages_show_no_outdated_word_after_deaths(database: Database, plan: list[tuple[object, ...]]) -> None:
    """Lines that a killed process had in memory may have no page; searches read these messages from the log."""
    world = IndexedRooms(database)
    for act in plan:
        await carry_out(world, act)
    await world.end()
    await world.assert_pages_are_those_from_scratch(are_whole=False)


async def test_page_above_shows_all_changes_of_one_turn(database: Database) -> None:
    world = IndexedRooms(database)
    room = world.rooms[0]
    await world.commit(room.send(GROUP))
    await world.end()
    assert Page(1, 0) in {page.page for page in await world.pages(room)}
    for seq, deletes in ((1, True), (CHUNK + 1, True), (GROUP, False)):
        await world.commit(room.change(seq, deletes=deletes))
    await world.commit(room.send(1))
    await world.end()
    await world.assert_pages_are_those_from_scratch()


async def test_page_above_is_built_in_the_turn_that_completes_and_changes_it(database: Database) -> None:
    world = IndexedRooms(database)
    room = world.rooms[0]
    await world.commit(room.send(GROUP - 1))
    await world.end()
    await world.commit(room.change(1, deletes=True))
    await world.commit(room.change(GROUP - 1, deletes=True))
    await world.commit(room.send(1))
    await world.end()
    assert Page(1, 0) in {page.page for page in await world.pages(room)}
    await world.assert_pages_are_those_from_scratch()
