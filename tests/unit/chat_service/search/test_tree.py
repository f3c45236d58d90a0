"""The tree of index pages."""

from hypothesis import given
from hypothesis import strategies as st

from chat_service.search.tree import (
    CHUNK,
    FANOUT,
    LEVEL_MAX,
    WORDS_MAX_BYTES,
    Candidate,
    IndexedText,
    Page,
    PageWalk,
    StoredPage,
    author_mark,
    candidates,
    chunk_from,
    chunk_of,
    compressed,
    decompressed,
    extended,
    merged,
    row_of,
)
from chat_service.search.words import needles_of

ROOM = "room_1"


def text(seq: int, content: str | None, user_id: str = "ann") -> IndexedText:
    return IndexedText(f"msg_{seq}", seq, user_id, 1_000 + seq, content)


def chunk(number: int, word: str, rev: int = 1) -> StoredPage:
    page = Page(0, number)
    return chunk_from(ROOM, page, rev, [text(seq, word) for seq in range(page.first_seq, page.last_seq + 1)])


@given(st.integers(min_value=0, max_value=3 * CHUNK * FANOUT**LEVEL_MAX))
def test_walk_covers_every_message_once_newest_first(newest_seq: int) -> None:
    walk, expected = PageWalk(newest_seq), newest_seq
    while not walk.is_over:
        page = walk.pop()
        assert page.first_seq <= expected <= page.last_seq
        assert expected == page.last_seq or page.level == 0
        expected = page.first_seq - 1
    assert expected == 0


@given(st.integers(min_value=1, max_value=CHUNK * FANOUT**3), st.randoms(use_true_random=False))
def test_expanded_pages_are_looked_at_in_their_place(newest_seq: int, random) -> None:  # type: ignore[no-untyped-def]
    walk, expected = PageWalk(newest_seq), newest_seq
    for _ in range(100):
        if walk.is_over:
            break
        following = walk.next_pages(3)
        page = walk.pop()
        assert page == following[0]
        if page.level > 0 and random.random() < 0.5:
            walk.expand(page)
            continue
        assert page.first_seq <= expected <= page.last_seq
        expected = page.first_seq - 1


def test_parent_and_children_agree() -> None:
    page = chunk_of(5_000)
    assert page.first_seq <= 5_000 <= page.last_seq
    assert page in page.parent.children
    assert page.parent.children[0].first_seq == page.parent.first_seq
    assert page.parent.children[-1].last_seq == page.parent.last_seq


def test_chunk_shows_candidates_newest_first_through_a_seq() -> None:
    stored = chunk_from(ROOM, Page(0, 0), 9, [text(1, "buy euro"), text(2, None), text(4, "sell euro")])
    assert stored.through == 4
    found = candidates(stored, needles_of("euro"), None, 4)
    assert found == [Candidate(1_004, "msg_4", ROOM, 4), Candidate(1_001, "msg_1", ROOM, 1)]
    assert [one.seq for one in candidates(stored, needles_of("euro"), None, 3)] == [1]
    assert candidates(stored, needles_of("buy sell"), None, 4) == []


def test_author_restricts_candidates() -> None:
    stored = chunk_from(ROOM, Page(0, 0), 9, [text(1, "euro", "ann"), text(2, "euro", "ben")])
    assert [one.id for one in candidates(stored, needles_of("euro"), "ben", 9)] == ["msg_2"]
    assert author_mark("ann") != author_mark("ben")


def test_deleted_message_keeps_its_id_alone() -> None:
    assert row_of(text(1, None)) == "msg_1"


def test_extended_chunk_equals_one_built_at_once() -> None:
    messages = [text(seq, f"word{seq}") for seq in range(1, 5)]
    whole = chunk_from(ROOM, Page(0, 0), 8, messages)
    assert extended(chunk_from(ROOM, Page(0, 0), 3, messages[:2]), 8, messages[2:]) == whole


def test_merged_page_has_the_words_of_its_children_alone() -> None:
    above = merged(Page(1, 0), 7, [chunk(number, f"word{number}") for number in range(FANOUT)])
    assert above.is_complete and above.rev == 7
    assert above.may_contain(needles_of("word15 word0"))
    assert not above.may_contain(needles_of("word16 x"))
    assert not above.may_contain(needles_of("msg_1"))  # ids are no words


def test_page_with_too_many_words_may_contain_everything() -> None:
    words = " ".join(f"{number:032d}" for number in range(400))
    stored = chunk_from(ROOM, Page(0, 0), 1, [text(seq, words) for seq in range(1, CHUNK + 1)])
    assert CHUNK * len(words) > WORDS_MAX_BYTES
    assert stored.words is None
    assert stored.may_contain(needles_of("nothing"))
    assert candidates(stored, needles_of("nothing"), None, CHUNK) == []
    children = [stored, *(chunk(number, "word") for number in range(1, FANOUT))]
    assert merged(Page(1, 0), 1, children).words is None


def test_stored_words_are_read_back() -> None:
    assert decompressed(compressed(" euro 東京 \n")) == " euro 東京 \n"
