"""The index of a room as a tree of pages, and the order in which a query reads them. Pure.

    level 2   |            words of 65,536 messages            | …
    level 1   | words of 4,096 | words of 4,096 | …             one page for 16 of the level below
    level 0   |256|256|256| …                                   an index row for each message: id, author, time, words

A page of a higher level holds the distinct words of its messages; a query that does not find its words there skips
all of them. So a word that nobody wrote costs some 50 pages in a room of a million messages. A page is written once its
last message is there, except the newest one of level 0, which grows. A page that is missing costs time, but no hit:
the query reads the pages below it instead, and finally the messages.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

import zstandard

from chat_service.search.words import Needle, message_words, packed

CHUNK = 256  # messages on a page of level 0
FANOUT = 16
LEVEL_MAX = 3  # 1,048,576 messages
WORDS_MAX_BYTES = 2 * 1024 * 1024  # of a page; a larger one stores no words, and queries read the pages below it
AUTHORS_KEPT = 10_000
_NO_ROW = ""
_compressor, _decompressor = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()


class Page(NamedTuple):
    """The place of a page: `number` counts the pages of its level from the oldest on, from 0."""

    level: int
    number: int

    @property
    def span(self) -> int:
        """Return the number of messages of a full page."""
        return CHUNK * int(FANOUT**self.level)

    @property
    def first_seq(self) -> int:
        """Return the seq of its first message."""
        return self.number * self.span + 1

    @property
    def last_seq(self) -> int:
        """Return the seq of its last message."""
        return (self.number + 1) * self.span

    @property
    def parent(self) -> "Page":
        """Return the page above."""
        return Page(self.level + 1, self.number // FANOUT)

    @property
    def children(self) -> "list[Page]":
        """Return the pages below, oldest first."""
        return [Page(self.level - 1, self.number * FANOUT + index) for index in range(FANOUT)]


def chunk_of(seq: int) -> Page:
    """Return the page of level 0 for a message."""
    return Page(0, (seq - 1) // CHUNK)


class IndexedText(NamedTuple):
    """A message to be indexed. `text` is None once the message is deleted."""

    id: str
    seq: int
    user_id: str
    at_ms: int
    text: str | None


class StoredPage(NamedTuple):
    """A page with its content. It reflects the log up to entry `rev` and covers messages up to seq `through`.

    `words` is None if they are too large. `first_id` and `first_at_ms` are those of its first existing message.
    """

    room_id: str
    page: Page
    rev: int
    through: int
    words: str | None
    first_id: str
    first_at_ms: int

    @property
    def is_complete(self) -> bool:
        """Return whether its last message is there."""
        return self.through >= self.page.last_seq

    def may_contain(self, needles: Sequence[Needle]) -> bool:
        """Return whether a message on the page may contain all words."""
        return self.words is None or all(needle.pattern in self.words for needle in needles)


class Candidate(NamedTuple):
    """A message that the index shows for a query. Sorts by time."""

    at_ms: int
    id: str
    room_id: str
    seq: int


# Lines of level 0 -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=AUTHORS_KEPT)
def author_mark(user_id: str) -> str:
    """Return a short digest of an author; a hit is checked against the message."""
    return blake2b(user_id.encode(errors="surrogatepass"), digest_size=4).hexdigest()


def row_of(message: IndexedText) -> str:
    """Return the index row of a message; a deleted message keeps only its id."""
    if message.text is None:
        return message.id
    return f"{message.id}\t{author_mark(message.user_id)}\t{message.at_ms}\t{packed(message_words(message.text))}"


def chunk_from(room_id: str, page: Page, rev: int, messages: Sequence[IndexedText]) -> StoredPage:
    """Return the page of level 0 with these messages, oldest first; at least one. Missing ones leave empty rows."""
    rows = [_NO_ROW] * (messages[-1].seq - page.first_seq + 1)
    for message in messages:
        rows[message.seq - page.first_seq] = row_of(message)
    first = messages[0]
    return StoredPage(room_id, page, rev, messages[-1].seq, _bounded("\n".join(rows)), first.id, first.at_ms)


def extended(before: StoredPage, rev: int, messages: Sequence[IndexedText]) -> StoredPage:
    """Return a page of level 0 with the messages that follow it."""
    words = None if before.words is None else _bounded("\n".join((before.words, *map(row_of, messages))))
    return before._replace(rev=rev, through=before.through + len(messages), words=words)


def candidates(chunk: StoredPage, needles: Sequence[Needle], author: str | None, upper: int) -> list[Candidate]:
    """Return the messages through seq `upper` that a page of level 0 shows for a query, newest first."""
    if chunk.words is None or not chunk.may_contain(needles):
        return []
    first, *others = [needle.pattern for needle in needles]
    mark = None if author is None else f"\t{author_mark(author)}\t"
    found: list[Candidate] = []
    rows = islice(chunk.words.split("\n"), max(upper - chunk.page.first_seq + 1, 0))
    for seq, row in enumerate(rows, chunk.page.first_seq):
        # HOT: `first` alone excludes most rows, in a fifth of the time of `all`
        if first in row and all(other in row for other in others) and (mark is None or mark in row):
            id_, _, at_ms, _ = row.split("\t")
            found.append(Candidate(int(at_ms), id_, chunk.room_id, seq))
    found.reverse()
    return found


# Higher levels --------------------------------------------------------------------------------------------------------


def merged(page: Page, rev: int, children: Sequence[StoredPage]) -> StoredPage:
    """Return the page above complete pages, oldest first."""
    words: str | None = None
    if all(child.words is not None for child in children):
        different: set[str] = set()
        for child in children:
            different.update(_words_on(child))
        words = _bounded(packed(sorted(different)))
    first = children[0]
    return StoredPage(first.room_id, page, rev, page.last_seq, words, first.first_id, first.first_at_ms)


def _words_on(stored: StoredPage) -> Iterable[str]:
    text = stored.words or ""
    if stored.page.level > 0:
        return text.split()
    return (word for row in text.split("\n") for word in row.rpartition("\t")[2].split() if "\t" in row)


def _bounded(words: str) -> str | None:
    return words if len(words) <= WORDS_MAX_BYTES // 4 or len(words.encode()) <= WORDS_MAX_BYTES else None


def compressed(words: str) -> bytes:
    """Return the words of a page as they are stored: a quarter of the size."""
    return _compressor.compress(words.encode())


def decompressed(words: bytes) -> str | None:
    """Return the words of a stored page; None for the format of an unreleased version.

    HOT: zstandard, because zlib would take 0.25 ms a page.

    A page of level 0 without words is searched message by message until an edit or a deletion of one of its messages
    builds it again; in place of a higher one, queries read the pages below it.
    """
    return _decompressor.decompress(words).decode() if words.startswith(zstandard.FRAME_HEADER) else None


# The order of a query -------------------------------------------------------------------------------------------------


class PageWalk:
    """The unsearched pages of a query, newest first. Bound: 16 for each level, and one for each 1,048,576 messages.

    Take a page from the top; then either read it, or replace it by the pages below it with `expand`.
    """

    def __init__(self, newest_seq: int) -> None:
        self._pages: list[Page] = []  # newest last
        seq = newest_seq
        while seq > 0:
            page = _page_ending_at(seq)
            self._pages.append(page)
            seq = page.first_seq - 1
        self._pages.reverse()

    @property
    def is_over(self) -> bool:
        """Return whether all pages were read."""
        return not self._pages

    def next_pages(self, count: int) -> list[Page]:
        """Return the next pages, newest first."""
        return self._pages[: -count - 1 : -1]

    def pop(self) -> Page:
        """Remove and return the next page."""
        return self._pages.pop()

    def expand(self, page: Page) -> None:
        """Replace a popped page by the pages below it."""
        self._pages += page.children


def _page_ending_at(seq: int) -> Page:
    """Return the largest page that ends at a seq; if none ends there, the page of level 0 that contains it."""
    page = chunk_of(seq)
    while page.level < LEVEL_MAX and page.parent.last_seq == seq:
        page = page.parent
    return page
