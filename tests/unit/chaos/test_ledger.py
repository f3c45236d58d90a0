"""The chaos checker notices every kind of violation."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.ledger import LATE_MAX_S, Ledger, LedgerItem, ViolationKind

ROOM = "room:r"
ITEMS = [LedgerItem(number, f"msg_{number}", f"k{number}") for number in range(1, 6)]

Tamper = Callable[[Ledger], None]


def good_run() -> Ledger:
    """Return a run of five messages and two listeners, one of which subscribes after the second message."""
    ledger = Ledger()
    for item in ITEMS:
        ledger.note_sent(item.key, "ann", [ROOM], item.seq)
        ledger.note_written(item.key, "ann", 1)
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


# Order of each sender -----------------------------------------------------------------------------------------------


def stored_in_order(*keys: str) -> Ledger:
    ledger = Ledger()
    for key in keys:
        ledger.note_sent(key, "ann", [ROOM], 1.0)
    ledger.note_stored(ROOM, [LedgerItem(seq, f"msg_{key}", key) for seq, key in enumerate(keys, 1)])
    return ledger


@given(st.permutations(["k1", "k2", "k3", "k4"]))
def test_order_over_one_connection_is_checked(order: list[str]) -> None:
    ledger = stored_in_order(*order)
    for key in sorted(order):
        ledger.note_written(key, "ann", 1)
    assert kinds(ledger) == ({ViolationKind.MISORDERED} if order != sorted(order) else set())


def test_misordered_item_is_named_with_its_sender() -> None:
    ledger = stored_in_order("k2", "k1", "k3")
    for key in ("k1", "k2", "k3"):
        ledger.note_written(key, "ann", 1)
    (violation,) = ledger.check()
    assert (violation.key, violation.listener, violation.channel) == ("k2", "ann", ROOM)
    assert violation.detail == "connection 1, behind key k1, which is seq 2"


def test_items_of_different_senders_or_connections_have_no_order() -> None:
    ledger = stored_in_order("k3", "k2", "k1")
    ledger.note_written("k1", "ann", 1)
    ledger.note_written("k2", "ann", 2)
    ledger.note_written("k3", "bob", 2)
    assert ledger.check() == []


def test_resent_item_may_be_stored_after_a_later_one() -> None:
    ledger = stored_in_order("k2", "k1")
    for key in ("k1", "k2", "k1"):
        ledger.note_written(key, "ann", 1)
    assert ledger.check() == []


def test_item_that_was_repeated_before_another_precedes_it() -> None:
    ledger = stored_in_order("k2", "k1")
    for key in ("k1", "k1", "k2"):
        ledger.note_written(key, "ann", 1)
    assert kinds(ledger) == {ViolationKind.MISORDERED}


def test_item_that_was_repeated_over_another_connection_has_no_order() -> None:
    ledger = stored_in_order("k2", "k1")
    ledger.note_written("k1", "ann", 1)
    ledger.note_written("k2", "ann", 1)
    ledger.note_written("k1", "ann", 2)
    assert ledger.check() == []


def test_item_that_was_never_stored_breaks_no_order() -> None:
    ledger = stored_in_order("k2")
    ledger.note_written("k1", "ann", 1)
    ledger.note_written("k2", "ann", 1)
    assert ledger.check() == []


# Access -------------------------------------------------------------------------------------------------------------


def run_with_removal(barred_s: float, grace_s: float = 0.0) -> Ledger:
    """Return a run in which bob, who receives items 3 and 4 only, loses access; ann sends item n at n s."""
    ledger = good_run()
    ledger.note_barred("bob", ROOM, barred_s, grace_s)
    ledger.delivered[ROOM, "bob"].pop()
    return ledger


def test_removed_user_misses_what_comes_later() -> None:
    assert run_with_removal(4.5).check() == []


def test_removed_user_misses_nothing_before_what_it_received() -> None:
    ledger = run_with_removal(4.5)
    del ledger.delivered[ROOM, "bob"][0]
    assert kinds(ledger) == {ViolationKind.LOST}


def test_item_sent_after_removal_is_not_delivered() -> None:
    (violation,) = run_with_removal(3.5).check()
    assert (violation.kind, violation.key, violation.listener) == (ViolationKind.EXPOSED, "k4", "bob")


def test_item_sent_within_the_grace_of_a_ban_may_be_delivered() -> None:
    assert run_with_removal(2.5, 2.0).check() == []
    assert kinds(run_with_removal(2.5, 1.0)) == {ViolationKind.EXPOSED}


def test_grace_of_a_ban_does_not_run_while_nothing_is_acked() -> None:
    ledger = run_with_removal(2.5, 1.0)
    for key in ("k3", "k4", "k5"):
        del ledger.acked[ROOM][key]
    assert ledger.check() == []


def test_earlier_item_may_be_delivered_late_but_not_for_ever() -> None:
    for late_s, found in ((LATE_MAX_S - 0.1, set()), (LATE_MAX_S + 0.1, {ViolationKind.EXPOSED})):
        ledger = run_with_removal(4.5)
        ledger.note_delivered("bob", ROOM, ITEMS[4], 4.5 + late_s, 1)
        ledger.sent["k5"] = [(4.4, "ann", ROOM)]
        assert kinds(ledger) == found


def test_item_of_removed_sender_does_not_enter() -> None:
    ledger = good_run()
    ledger.note_barred("ann", ROOM, 4.5)
    assert {(one.kind, one.key) for one in ledger.check()} == {
        (ViolationKind.ENTERED, "k5"),
        (ViolationKind.EXPOSED, "k5"),
    }


def test_item_that_was_first_sent_before_removal_may_enter() -> None:
    ledger = good_run()
    ledger.note_barred("ann", ROOM, 5.05)
    ledger.note_sent("k5", "ann", [ROOM], 6.0)
    assert ledger.check() == []


def test_only_first_confirmation_of_removal_counts() -> None:
    ledger = run_with_removal(3.5)
    ledger.note_barred("bob", ROOM, 99.0)
    assert kinds(ledger) == {ViolationKind.EXPOSED}


def test_unacked_message_without_id_is_stored_once_or_not_at_all() -> None:
    ledger = stored_in_order("o1")
    ledger.note_sent("o2", "ann", [ROOM], 1.0)
    assert ledger.check() == []
    ledger.note_stored(ROOM, [LedgerItem(1, "msg_1", "o1"), LedgerItem(2, "msg_2", "o1")])
    assert kinds(ledger) == {ViolationKind.STORED_TWICE}
