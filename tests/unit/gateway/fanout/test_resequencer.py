"""One lossless source put in order."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.resequencer import BACKLOG_MAX, Gap, Stream


def item(seq: int) -> bytes:
    return b"%d" % seq


def started(seq: int = 0) -> Stream:
    stream = Stream()
    stream.start(seq)
    return stream


def offer(stream: Stream, *seqs: int) -> list[int]:
    due = [pair for seq in seqs for pair in stream.offer(seq, item(seq))]
    assert all(data == item(seq) for seq, data in due)
    return [seq for seq, _ in due]


def test_nothing_passes_while_nobody_listens() -> None:
    stream = Stream()
    assert offer(stream, 1, 2, 3) == []
    assert stream.last_seq is None
    assert stream.missing("c") is None


def test_what_is_in_order_passes_at_once() -> None:
    assert offer(started(), 1, 2, 3) == [1, 2, 3]


def test_repeats_and_older_items_are_dropped() -> None:
    assert offer(started(5), 5, 6, 6, 3, 7, 6) == [6, 7]


def test_what_comes_early_waits_for_what_is_missing() -> None:
    stream = started()
    assert offer(stream, 3, 2, 5) == []
    assert stream.missing("c") == Gap("c", 0, 1)
    assert offer(stream, 1) == [1, 2, 3]
    assert stream.missing("c") == Gap("c", 3, 4)
    assert stream.early() == {5: b"5"}
    assert offer(stream, 4) == [4, 5]
    assert stream.missing("c") is None


def test_what_one_has_heard_of_is_missing() -> None:
    stream = started(3)
    stream.heard_seq = 7
    assert stream.missing("c") == Gap("c", 3, 7)


def test_what_was_heard_before_the_start_is_missing() -> None:
    stream = Stream()
    offer(stream, 9)
    stream.start(4)
    assert stream.missing("c") == Gap("c", 4, 9)


def test_skipping_passes_on_what_there_is() -> None:
    stream = started()
    offer(stream, 2, 4, 6, 7)
    assert [seq for seq, _ in stream.skip_to(5)] == [2, 4, 6, 7]
    assert stream.last_seq == 7
    assert stream.missing("c") is None
    assert stream.skip_to(7) == []
    assert offer(stream, 5, 8) == [8]


def test_a_stopped_stream_keeps_nothing() -> None:
    stream = started()
    offer(stream, 3)
    stream.stop()
    stream.start(0)
    assert stream.missing("c") is None
    assert offer(stream, 1, 2) == [1, 2]


def test_what_does_not_fit_is_part_of_the_gap_again() -> None:
    stream = started()
    offer(stream, *range(2, BACKLOG_MAX + 12))
    assert len(stream.early()) == BACKLOG_MAX
    assert len(offer(stream, 1)) == BACKLOG_MAX + 1
    assert stream.missing("c") == Gap("c", BACKLOG_MAX + 1, BACKLOG_MAX + 11)


seqs = st.integers(1, 25)
steps = st.lists(st.tuples(st.sampled_from(["offer", "offer", "offer", "skip", "hear"]), seqs), max_size=60)


@given(st.integers(0, 10), steps)
def test_what_passes_is_in_order_without_repeat_and_every_hole_was_skipped(
    start: int, script: list[tuple[str, int]]
) -> None:
    stream = started(start)
    offered: set[int] = set()
    skipped = heard = start
    passed: list[int] = []
    for kind, seq in script:
        match kind:
            case "offer":
                offered.add(seq)
                heard = max(heard, seq)
                passed += offer(stream, seq)
            case "skip":
                skipped = max(skipped, seq)
                passed += [at for at, _ in stream.skip_to(seq)]
            case _:
                stream.heard_seq = max(stream.heard_seq, seq)
                heard = max(heard, seq)
        assert stream.last_seq is not None
        assert stream.last_seq + 1 not in stream.early(), "what is due has not passed"
        gap = stream.missing("c")
        if heard <= stream.last_seq:
            assert gap is None
        else:
            assert gap is not None
            assert gap.after == stream.last_seq < gap.through <= heard
            assert not set(range(gap.after + 1, gap.through + 1)) & stream.early().keys()
    assert passed == sorted(set(passed))
    assert set(passed) <= offered
    last = stream.last_seq or 0
    holes = set(range(start + 1, last + 1)) - set(passed)
    assert all(hole <= skipped for hole in holes)


@given(st.permutations(list(range(1, 16))))
def test_every_order_of_arrival_comes_out_as_one(order: list[int]) -> None:
    assert offer(started(), *order) == list(range(1, 16))
