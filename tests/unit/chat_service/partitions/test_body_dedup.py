"""Deduplication of bodies: each is decided once, and answered as often as it is asked for."""

from chat_service.partitions.body_dedup import GATEWAYS_MAX, BodyDedup, Copy
from shared.commands.body import BodyHead


def head(number: int, gateway: str = "gateway", reply_to: str = "queue") -> BodyHead:
    return BodyHead(gateway=gateway, number=number, partition=1, term=1, reply_to=reply_to, sent_at_monotonic_ms=1)


def test_first_and_later_bodies_are_new() -> None:
    dedup = BodyDedup()
    assert [dedup.arrive(head(number)) for number in (3, 4, 9)] == [Copy.NEW] * 3


def test_body_in_hand_is_not_decided_again() -> None:
    dedup = BodyDedup()
    dedup.arrive(head(3))
    assert dedup.arrive(head(3)) is Copy.UNDECIDED


def test_answered_body_is_answered_again() -> None:
    dedup = BodyDedup()
    dedup.arrive(head(3))
    dedup.answer(head(3), (b"a", b"b"))
    assert dedup.arrive(head(3)) is Copy.ANSWERED
    assert dedup.answer_of(head(3)) == (b"a", b"b")


def test_body_without_answer_lines_counts_as_answered() -> None:
    dedup = BodyDedup()
    dedup.arrive(head(3))
    dedup.answer(head(3), ())
    assert dedup.arrive(head(3)) is Copy.ANSWERED
    assert dedup.answer_of(head(3)) == ()


def test_body_with_a_forgotten_answer_is_decided_again_and_older_ones_stay_stale() -> None:
    dedup = BodyDedup()
    dedup.arrive(head(3))
    dedup.answer(head(3), (b'{"id":"cmd_1"}', b'{"id":"msg_1","message":"text of a deleted message"}'))
    dedup.arrive(head(9, gateway="a third"))
    dedup.answer(head(9, gateway="a third"), (b'{"id":"msg_2"}',))
    dedup.arrive(head(1, gateway="another"))
    dedup.forget_answers({"msg_1"})
    assert dedup.arrive(head(9, gateway="a third")) is Copy.ANSWERED
    assert dedup.arrive(head(2)) is Copy.STALE
    assert dedup.arrive(head(3)) is Copy.NEW
    assert dedup.arrive(head(3)) is Copy.UNDECIDED
    assert dedup.arrive(head(1, gateway="another")) is Copy.UNDECIDED
    dedup.answer(head(3), (b"a",))
    assert dedup.arrive(head(3)) is Copy.ANSWERED


def test_older_body_is_stale_and_changes_nothing() -> None:
    dedup = BodyDedup()
    dedup.arrive(head(3))
    assert dedup.arrive(head(2, reply_to="old queue")) is Copy.STALE
    assert dedup.answer(head(3), (b"a",)) == "queue"
    assert dedup.arrive(head(2)) is Copy.STALE
    assert dedup.answer_of(head(3)) == (b"a",)


def test_answer_goes_to_the_queue_of_the_newest_copy() -> None:
    dedup = BodyDedup()
    dedup.arrive(head(3))
    dedup.arrive(head(3, reply_to="new queue"))
    assert dedup.answer(head(3), ()) == "new queue"


def test_late_answer_does_not_replace_that_of_a_newer_body() -> None:
    dedup = BodyDedup()
    dedup.arrive(head(3))
    dedup.arrive(head(4, reply_to="new queue"))
    assert dedup.answer(head(3), (b"late",)) == "queue"
    assert dedup.arrive(head(4)) is Copy.UNDECIDED


def test_gateways_count_apart() -> None:
    dedup = BodyDedup()
    dedup.arrive(head(9, "one"))
    assert dedup.arrive(head(1, "other")) is Copy.NEW


def test_gateway_that_was_silent_longest_is_forgotten() -> None:
    dedup = BodyDedup()
    for number in range(GATEWAYS_MAX):
        dedup.arrive(head(5, f"gateway_{number}"))
    assert dedup.arrive(head(5, "gateway_0")) is Copy.UNDECIDED  # so gateway_1 is the longest silent one
    dedup.arrive(head(5, "one more"))
    assert dedup.arrive(head(4, "gateway_0")) is Copy.STALE
    assert dedup.arrive(head(4, "gateway_1")) is Copy.NEW
