"""The resequencer."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.resequencer import BACKLOG_MAX, Gap, Resequencer


def item(seq: int) -> bytes:
    return b"%d" % seq


def started(seq: int = 0) -> Resequencer:
    resequencer = Resequencer()
    resequencer.start(seq)
    return resequencer


def offer(resequencer: Resequencer, *seqs: int) -> list[int]:
    due = [pair for seq in seqs for pair in resequencer.offer(seq, item(seq))]
    assert all(data == item(seq) for seq, data in due)
    return [seq for seq, _ in due]


def test_nothing_passes_before_the_start() -> None:
    resequencer = Resequencer()
    assert offer(resequencer, 1, 2, 3) == []
    assert resequencer.last_position is None
    assert resequencer.missing("c") is None


def test_ordered_items_pass_at_once() -> None:
    assert offer(started(), 1, 2, 3) == [1, 2, 3]


def test_repeats_and_older_items_are_dropped() -> None:
    assert offer(started(5), 5, 6, 6, 3, 7, 6) == [6, 7]


def test_early_items_wait_for_missing_ones() -> None:
    resequencer = started()
    assert offer(resequencer, 3, 2, 5) == []
    assert resequencer.missing("c") == Gap("c", 0, 1)
    assert offer(resequencer, 1) == [1, 2, 3]
    assert resequencer.missing("c") == Gap("c", 3, 4)
    assert resequencer.early() == {5: b"5"}
    assert offer(resequencer, 4) == [4, 5]
    assert resequencer.missing("c") is None


def test_items_up_to_the_noted_head_are_missing() -> None:
    resequencer = started(3)
    resequencer.note_head(7)
    assert resequencer.missing("c") == Gap("c", 3, 7)


def test_items_offered_before_the_start_are_missing() -> None:
    resequencer = Resequencer()
    offer(resequencer, 9)
    resequencer.start(4)
    assert resequencer.missing("c") == Gap("c", 4, 9)


def test_skip_passes_the_waiting_items() -> None:
    resequencer = started()
    offer(resequencer, 2, 4, 6, 7)
    assert [seq for seq, _ in resequencer.skip_to(5)] == [2, 4, 6, 7]
    assert resequencer.last_position == 7
    assert resequencer.missing("c") is None
    assert resequencer.skip_to(7) == []
    assert offer(resequencer, 5, 8) == [8]


def test_stopped_resequencer_keeps_nothing() -> None:
    resequencer = started()
    offer(resequencer, 3)
    resequencer.stop()
    resequencer.start(0)
    assert resequencer.missing("c") is None
    assert offer(resequencer, 1, 2) == [1, 2]


def test_items_beyond_the_backlog_are_part_of_the_gap() -> None:
    resequencer = started()
    offer(resequencer, *range(2, BACKLOG_MAX + 12))
    assert len(resequencer.early()) == BACKLOG_MAX
    assert len(offer(resequencer, 1)) == BACKLOG_MAX + 1
    assert resequencer.missing("c") == Gap("c", BACKLOG_MAX + 1, BACKLOG_MAX + 11)


seqs = st.integers(1, 25)
steps = st.lists(st.tuples(st.sampled_from(["offer", "offer", "offer", "skip", "note_head"]), seqs), max_size=60)


@given(st.integers(0, 10), steps)
def test_items_pass_in_order_once_and_only_skips_leave_holes(start: int, script: list[tuple[str, int]]) -> None:
    resequencer = started(start)
    offered: set[int] = set()
    skipped = head = start
    passed: list[int] = []
    for kind, seq in script:
        match kind:
            case "offer":
                offered.add(seq)
                head = max(head, seq)
                passed += offer(resequencer, seq)
            case "skip":
                skipped = max(skipped, seq)
                passed += [at for at, _ in resequencer.skip_to(seq)]
            case _:
                resequencer.note_head(seq)
                head = max(head, seq)
        assert resequencer.last_position is not None
        assert resequencer.last_position + 1 not in resequencer.early(), "what is due has not passed"
        gap = resequencer.missing("c")
        if head <= resequencer.last_position:
            assert gap is None
        else:
            assert gap is not None
            assert gap.after == resequencer.last_position < gap.through <= head
            assert not set(range(gap.after + 1, gap.through + 1)) & resequencer.early().keys()
    assert passed == sorted(set(passed))
    assert set(passed) <= offered
    last = resequencer.last_position or 0
    holes = set(range(start + 1, last + 1)) - set(passed)
    assert all(hole <= skipped for hole in holes)


@given(st.permutations(list(range(1, 16))))
def test_any_order_of_arrival_is_put_in_order(order: list[int]) -> None:
    assert offer(started(), *order) == list(range(1, 16))
