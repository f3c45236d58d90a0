"""Marks of mentions."""

import msgspec

from chat_service.rooms.changes import Edit, Erasure
from chat_service.rooms.log import EntryKind
from chat_service.rooms.mention_marks import ROOM, MentionMark, marks_of, with_marks
from shared.protocol.message_parts import MessageExtras
from tests.support.log_entries import message_at


def test_message_edit_and_deletion_mark_in_the_order_of_the_log() -> None:
    sent = message_at(1, "m")
    assert sent.message is not None
    extras = MessageExtras(mentions=("ben",), mention_room=True)
    sent = msgspec.structs.replace(sent, message=msgspec.structs.replace(sent.message, extras=extras))
    edited = msgspec.structs.replace(
        sent,
        kind=EntryKind.EDITED,
        message=None,
        change=Edit(message_id="m", seq=1, text="", mentions=("cat",), unmentioned=("ben",)),
    )
    assert list(marks_of(sent)) == [MentionMark("ben", 1, True), MentionMark(ROOM, 1, True)]
    assert with_marks([7], "ben", [*marks_of(sent), *marks_of(edited)]) == {7}
    assert with_marks([], "cat", [*marks_of(sent), *marks_of(edited)]) == {1}
    erased = msgspec.structs.replace(
        edited, kind=EntryKind.ERASED, change=Erasure(message_id="m", seq=1, mentions=("cat",), mention_room=True)
    )
    for user_id in ("cat", ROOM):
        assert with_marks([1], user_id, marks_of(erased)) == set()
