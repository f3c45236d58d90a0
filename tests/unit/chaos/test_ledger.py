"""The chaos checker notices every kind of violation."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.ledger import Ledger, LedgerItem, ViolationKind

ROOM = "room:r"
ITEMS = [LedgerItem(number, f"msg_{number}", f"k{number}") for number in range(1, 6)]

Tamper = Callable[[Ledger], None]


def good_run() -> Ledger:
    """Return a run of five messages and two listeners, one of which subscribes after the second message."""
    ledger = Ledger()
    for item in ITEMS:
        ledger.note_sent(item.key, "ann", [ROOM], item.seq)
        ledger.note_acked(item.key, ROOM, item.seq + 0.1, item)
    for listener, begun in (("ann", 0), ("bob", 2)):
        ledger.note_listening(listener, ROOM, begun)
        for item in ITEMS[begun:]:
            ledger.note_delivered(listener, ROOM, item, item.seq + 0.2, 1)
    ledger.note_stored(ROOM, ITEMS)
    return ledger


def kinds(ledger: Ledger) -> set[ViolationKind]:
    return {violation.kind for violation in ledger.check()}


def lose(ledger: Ledger) -> None:
    del ledger.delivered[ROOM, "bob"][1]


def lose_the_last(ledger: Ledger) -> None:
    ledger.delivered[ROOM, "bob"].pop()


def lose_all(ledger: Ledger) -> None:
    del ledger.delivered[ROOM, "bob"]


def repeat(ledger: Ledger) -> None:
    ledger.delivered[ROOM, "ann"].append(ledger.delivered[ROOM, "ann"][-1])


def repeat_over_another_connection(ledger: Ledger) -> None:
    ledger.note_delivered("ann", ROOM, ITEMS[-1], 99.0, 2)


def replay_what_was_before(ledger: Ledger) -> None:
    ledger.delivered[ROOM, "bob"].insert(0, ledger.delivered[ROOM, "ann"][0])


def reorder(ledger: Ledger) -> None:
    got = ledger.delivered[ROOM, "ann"]
    got[1], got[2] = got[2], got[1]


def alter(ledger: Ledger) -> None:
    got = ledger.delivered[ROOM, "ann"]
    got[1] = got[1]._replace(item=ITEMS[1]._replace(id="msg_other"))


def deliver_an_unacked_message_twice(ledger: Ledger) -> None:
    """Lose an ack, so that the sender resends the message and it is stored under a new seq."""
    del ledger.acked[ROOM]["k5"]
    again = LedgerItem(6, "msg_6", "k5")
    ledger.note_sent("k5", "ann", [ROOM], 5.5)
    ledger.note_stored(ROOM, [*ITEMS, again])
    for listener in ("ann", "bob"):
        ledger.note_delivered(listener, ROOM, again, 6.0, 1)


def forget_what_was_acked(ledger: Ledger) -> None:
    ledger.note_stored(ROOM, ITEMS[:-1])
    for listener in ("ann", "bob"):
        ledger.delivered[ROOM, listener].pop()


def forget_the_whole_channel(ledger: Ledger) -> None:
    del ledger.stored[ROOM]


def ack_as_two(ledger: Ledger) -> None:
    ledger.note_acked("k1", ROOM, 9.0, LedgerItem(7, "msg_7", "k1"))


def leave_a_gap(ledger: Ledger) -> None:
    ledger.note_stored(ROOM, [*ITEMS[:-1], ITEMS[-1]._replace(seq=6)])


def invent(ledger: Ledger) -> None:
    del ledger.sent["k1"]
    del ledger.channels_of["k1"]


def leak_into_another_room(ledger: Ledger) -> None:
    ledger.note_delivered("bob", "room:secret", LedgerItem(1, "msg_9", "k9"), 9.0, 1)


def deliver_what_is_not_stored(ledger: Ledger) -> None:
    ledger.note_delivered("ann", ROOM, LedgerItem(6, "msg_6", "k6"), 9.0, 1)


def lose_a_notification(ledger: Ledger) -> None:
    """Lose a confirmed event, of which only the key is known."""
    ledger.note_sent("evt_1", "publisher", ["inbox:ann"], 1.0)
    ledger.note_acked("evt_1", "inbox:ann", 1.1)


def fail_otherwise(ledger: Ledger) -> None:
    ledger.note_failure("the server closed with 1011", listener="ann")


def test_good_run_has_no_violations() -> None:
    assert good_run().check() == []


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lose, ViolationKind.LOST),
        (lose_the_last, ViolationKind.LOST),
        (lose_all, ViolationKind.LOST),
        (repeat, ViolationKind.REPEATED),
        (repeat_over_another_connection, ViolationKind.REPEATED),
        (replay_what_was_before, ViolationKind.REPEATED),
        (reorder, ViolationKind.REORDERED),
        (alter, ViolationKind.ALTERED),
        (deliver_an_unacked_message_twice, ViolationKind.STORED_TWICE),
        (forget_what_was_acked, ViolationKind.NOT_STORED),
        (forget_the_whole_channel, ViolationKind.NOT_STORED),
        (ack_as_two, ViolationKind.ACKED_TWICE),
        (leave_a_gap, ViolationKind.GAP),
        (invent, ViolationKind.UNKNOWN),
        (leak_into_another_room, ViolationKind.UNKNOWN),
        (deliver_what_is_not_stored, ViolationKind.UNKNOWN),
        (lose_a_notification, ViolationKind.NOT_STORED),
        (fail_otherwise, ViolationKind.FAILED),
    ],
)
def test_checker_notices_violation(tamper: Tamper, kind: ViolationKind) -> None:
    ledger = good_run()
    tamper(ledger)
    assert kind in kinds(ledger)


@given(st.permutations(range(5)))
def test_wrong_order_is_noticed(order: list[int]) -> None:
    ledger = good_run()
    got = ledger.delivered[ROOM, "ann"]
    ledger.delivered[ROOM, "ann"] = [got[index] for index in order]
    assert kinds(ledger) == ({ViolationKind.REORDERED} if order != sorted(order) else set())


@given(st.lists(st.integers(0, 4), max_size=7))
def test_only_complete_ordered_delivery_passes(indexes: list[int]) -> None:
    ledger = good_run()
    got = ledger.delivered[ROOM, "ann"]
    ledger.delivered[ROOM, "ann"] = [got[index] for index in indexes]
    assert (ledger.check() == []) == (indexes == [0, 1, 2, 3, 4])


def test_history_lists_events_of_item_by_time() -> None:
    ledger = good_run()
    repeat(ledger)
    (violation,) = ledger.check()
    assert (violation.kind, violation.key, violation.listener) == (ViolationKind.REPEATED, "k5", "ann")
    steps = [line.split("s  ", 1)[1].split(" ")[0] for line in ledger.history(violation)]
    assert steps == ["sent", "acked", "delivered", "delivered", "stored"]
