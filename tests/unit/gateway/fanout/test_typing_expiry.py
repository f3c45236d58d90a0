"""Every start of typing gets an end, even if chat_service dies before it sends one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.typing_marks import END_AFTER_MS, PASS_ON_MS, Typist, typing_deliveries
from gateway.fanout import typing_expiry
from gateway.fanout.typing_expiry import OVERDUE_S, TypingExpiry
from shared.bus.delivery import Delivery, DeliveryKind, room_channel

ANN, BOB = Typist("room_1", "ann"), Typist("room_1", "bob")
DIRECT = Typist("room_2", "ann", ("ann", "bob"))


def line(typist: Typist, *, is_typing: bool) -> Delivery:
    [delivery] = typing_deliveries(typist, is_typing=is_typing)
    return delivery


@pytest.mark.parametrize("typist", [ANN, DIRECT])
def test_missing_end_is_made_as_chat_service_would_make_it(typist: Typist) -> None:
    shown = TypingExpiry()
    shown.note(line(typist, is_typing=True), 0.0)
    assert shown.overdue(OVERDUE_S - 0.1) == []
    assert shown.overdue(OVERDUE_S) == [line(typist, is_typing=False)]
    assert shown.overdue(100.0) == []


def test_end_is_overdue_only_after_chat_service_must_have_sent_it() -> None:
    assert OVERDUE_S * 1000 > END_AFTER_MS + PASS_ON_MS


def test_received_end_is_not_repeated_and_a_start_renews() -> None:
    shown = TypingExpiry()
    for typist in (ANN, BOB):
        shown.note(line(typist, is_typing=True), 0.0)
    shown.note(line(ANN, is_typing=False), 1.0)
    shown.note(line(BOB, is_typing=True), 5.0)
    assert shown.overdue(OVERDUE_S + 4.9) == []
    assert shown.overdue(OVERDUE_S + 5.0) == [line(BOB, is_typing=False)]


def test_other_deliveries_are_ignored() -> None:
    shown = TypingExpiry()
    for frame in (b'{"type":"chat:read","data":{"isTyping":true}}', b"", b'{"type":"user:online","data":{}}'):
        shown.note(Delivery(room_channel("r"), DeliveryKind.TRANSIENT, 0, "", frame), 0.0)
    assert shown.overdue(100.0) == []


def test_oldest_ends_are_dropped_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing_expiry, "EXPECTED_MAX", 2)
    shown = TypingExpiry()
    for number in range(3):
        shown.note(line(Typist("room_1", f"u{number}"), is_typing=True), float(number))
    assert [end.key for end in shown.overdue(100.0)] == ["u1", "u2"]


@given(st.lists(st.tuples(st.sampled_from([ANN, BOB, DIRECT]), st.booleans(), st.floats(0, 5)), max_size=30))
def test_every_shown_typist_is_ended_once(script: list[tuple[Typist, bool, float]]) -> None:
    shown, now_s = TypingExpiry(), 0.0
    typing: set[Typist] = set()
    ended: list[Delivery] = []
    for typist, is_typing, pause_s in script:
        now_s += pause_s
        ended += (over := shown.overdue(now_s))
        typing -= {one for one in typing if line(one, is_typing=False) in over}
        shown.note(line(typist, is_typing=is_typing), now_s)
        typing = typing | {typist} if is_typing else typing - {typist}
    assert set(shown.overdue(now_s + OVERDUE_S)) == {line(one, is_typing=False) for one in typing}
