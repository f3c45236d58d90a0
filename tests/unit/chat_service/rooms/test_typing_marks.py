"""Typing marks: starts are passed on at most every 2 s and expire after 6 s."""

from hypothesis import given
from hypothesis import strategies as st

from chat_service.rooms.typing_marks import END_AFTER_MS, PASS_ON_MS, TypingMarks, Typist

ANN = Typist("room_1", "ann")
BEN = Typist("room_1", "ben")
ANN_ELSEWHERE = Typist("room_2", "ann")


def test_renewals_are_passed_on_every_two_seconds() -> None:
    marks = TypingMarks()
    passed_on = [now_ms for now_ms in range(0, 6_001, 500) if marks.set(ANN, True, now_ms)]
    assert passed_on == [0, PASS_ON_MS, 2 * PASS_ON_MS, 3 * PASS_ON_MS]


def test_end_is_passed_on_once() -> None:
    marks = TypingMarks()
    marks.set(ANN, True, 0)
    assert marks.set(ANN, False, 100)
    assert not marks.set(ANN, False, 200)
    assert marks.ended(60_000) == []


def test_end_without_start_is_not_passed_on() -> None:
    assert not TypingMarks().set(ANN, False, 0)


def test_restart_is_paced_by_last_start() -> None:
    marks = TypingMarks()
    marks.set(ANN, True, 0)
    marks.set(ANN, False, 10)
    assert not marks.set(ANN, True, 20)
    assert not marks.set(ANN, False, 30)
    assert not marks.set(ANN, True, PASS_ON_MS - 1)
    assert marks.set(ANN, True, PASS_ON_MS)


def test_user_never_shown_does_not_end() -> None:
    marks = TypingMarks()
    marks.set(ANN, True, 0)
    marks.set(ANN, False, 10)
    marks.set(ANN, True, 20)
    assert marks.ended(60_000) == []


def test_all_shown_lists_everybody_shown() -> None:
    marks = TypingMarks()
    for typist in (ANN, BEN, ANN_ELSEWHERE):
        marks.set(typist, True, 0)
    marks.set(BEN, False, 10)
    assert sorted(marks.all_shown()) == [ANN, ANN_ELSEWHERE]


def test_typing_expires_six_seconds_after_last_renewal() -> None:
    marks = TypingMarks()
    marks.set(ANN, True, 0)
    marks.set(ANN, True, 1_000)
    assert marks.ended(END_AFTER_MS) == []
    assert marks.ended(END_AFTER_MS + 999) == []
    assert marks.ended(END_AFTER_MS + 1_000) == [ANN]
    assert marks.ended(END_AFTER_MS + 1_000) == []


def test_start_after_expiry_is_passed_on() -> None:
    marks = TypingMarks()
    marks.set(ANN, True, 0)
    assert marks.ended(END_AFTER_MS) == [ANN]
    assert marks.set(ANN, True, END_AFTER_MS)


def test_users_and_rooms_are_separate() -> None:
    marks = TypingMarks()
    assert marks.set(ANN, True, 0)
    assert marks.set(BEN, True, 1)
    assert marks.set(ANN_ELSEWHERE, True, 2)
    marks.set(ANN, True, 3_000)
    assert marks.ended(END_AFTER_MS + 2) == [BEN, ANN_ELSEWHERE]


steps = st.lists(
    st.tuples(
        st.sampled_from((ANN, BEN, ANN_ELSEWHERE)), st.sampled_from(("start", "end", "sweep")), st.integers(0, 3_000)
    )
)


@given(steps)
def test_starts_are_paced_and_each_end_is_shown_once(steps: list[tuple[Typist, str, int]]) -> None:
    marks = TypingMarks()
    shown: set[Typist] = set()
    ends_ms: dict[Typist, int] = {}
    passed_on_ms: dict[Typist, int] = {}
    now_ms = 0
    for typist, what, later_ms in steps:
        now_ms += later_ms
        match what:
            case "sweep":
                over = {one for one, at_ms in ends_ms.items() if at_ms <= now_ms}
                ended = marks.ended(now_ms)
                assert sorted(ended) == sorted(over & shown)
                ends_ms = {one: at_ms for one, at_ms in ends_ms.items() if one not in over}
                shown -= over
            case "start":
                is_due = now_ms - passed_on_ms.get(typist, -PASS_ON_MS) >= PASS_ON_MS
                assert marks.set(typist, True, now_ms) == is_due
                ends_ms[typist] = now_ms + END_AFTER_MS
                if is_due:
                    passed_on_ms[typist] = now_ms
                    shown.add(typist)
            case "end":
                assert marks.set(typist, False, now_ms) == (typist in shown)
                ends_ms.pop(typist, None)
                shown.discard(typist)
        assert sorted(marks.all_shown()) == sorted(shown)
    assert set(marks.ended(now_ms + END_AFTER_MS)) == shown
    assert marks.ended(2**53) == []
