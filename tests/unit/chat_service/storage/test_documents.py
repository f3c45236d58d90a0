"""Keys of documents: unique for the ids that they are built from, and unchanged for ids stored earlier."""

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.log import EntryKind
from chat_service.storage.documents import (
    Document,
    NewerDocument,
    from_entry,
    member_key,
    old_sent_as,
    sent_as,
    to_entry,
)
from shared.bus.events import short_event_key
from shared.ids import direct_room_id
from tests.bench.plans import an_entry

ROOM, OTHER_ROOM = "room_1", "room_2"
user_ids = st.text(st.sampled_from("ux/,%2F"), min_size=1, max_size=5)
old_ids = st.from_regex(r"[A-Za-z0-9_.:@|=+~-]{1,20}", fullmatch=True)
texts = st.text(st.sampled_from("xy/,%2F"), min_size=1, max_size=5)
rooms = st.sampled_from([ROOM, OTHER_ROOM])
senders = st.tuples(rooms, user_ids, texts)


def test_slash_in_user_id_is_not_a_separator() -> None:
    assert sent_as(ROOM, "u", "x/y") != sent_as(ROOM, "u/x", "y")
    assert sent_as(ROOM, "u/x", "y") != sent_as(ROOM, "u%2Fx", "y")


@given(senders, senders)
def test_sent_as_is_injective(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (old_sent_as(*one) == old_sent_as(*other)) is (one == other)
    assert (sent_as(*one) == sent_as(*other)) is (one == other)


@given(rooms, old_ids, texts)
def test_key_of_stored_message_is_unchanged(room_id: str, user_id: str, client_id: str) -> None:
    stored = f"{room_id}/{user_id}/{client_id}"
    assert old_sent_as(room_id, user_id, client_id) == stored
    assert sent_as(room_id, user_id, client_id) == blake2b(stored.encode(), digest_size=16).digest()


@given(st.tuples(rooms, user_ids), st.tuples(rooms, user_ids))
def test_member_key_is_injective(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (member_key(*one) == member_key(*other)) is (one == other)


@given(user_ids, user_ids, user_ids, user_ids)
def test_direct_room_belongs_to_one_pair(one: str, two: str, three: str, four: str) -> None:
    assert (direct_room_id(one, two) == direct_room_id(three, four)) is ({one, two} == {three, four})


@given(*[st.text(st.sampled_from("a\x00\x01\x02"), min_size=1, max_size=4)] * 4)
def test_event_key_is_injective(source: str, id_: str, other_source: str, other_id: str) -> None:
    is_same = (source, id_) == (other_source, other_id)
    assert (short_event_key(source, id_) == short_event_key(other_source, other_id)) is is_same


@pytest.mark.parametrize("later", [{"kind": "room.sealed"}, {"members": [{"userId": "ben", "role": "warden"}]}])
def test_entry_of_a_newer_release_is_named(later: Document) -> None:
    document = from_entry(an_entry(ROOM, 4, EntryKind.UPDATED))
    with pytest.raises(NewerDocument, match="entry 4 of room room_1 was written by a newer release"):
        to_entry(document | later)
