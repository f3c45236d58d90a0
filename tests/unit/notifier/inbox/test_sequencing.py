"""The seqs of inbox entries: gapless, and the same when a batch is repeated."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from notifier.events.notifications import Entry, Notice
from notifier.inbox.sequencing import UserNotice, assign

users = st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True).map(tuple)


def batch(recipients: Sequence[tuple[str, ...]], first: int = 0) -> list[UserNotice]:
    return [UserNotice(Notice(f"key{number}", "a:b", 0, b"{}"), ids) for number, ids in enumerate(recipients, first)]


batches = st.lists(users, min_size=1, max_size=6).map(batch)
heads = st.fixed_dictionaries({user: st.integers(0, 9) for user in "abcde"})


def stored(entries: Sequence[Entry]) -> dict[tuple[str, str], Entry]:
    return {(entry.key, entry.user_id): entry for entry in entries}


def test_inbox_continues_from_its_head() -> None:
    assigned = assign(batch([("a", "b"), ("b",)]), {}, {"a": 4, "b": 0})
    assert [[entry.seq for entry in entries] for entries in assigned.entries.values()] == [[5, 1], [2]]
    assert assigned.heads == {"a": 5, "b": 2}
    assert assigned.fresh == [entry for entries in assigned.entries.values() for entry in entries]


@given(batches, heads)
def test_seqs_are_gapless_in_event_order(user_notices: list[UserNotice], before: dict[str, int]) -> None:
    assigned = assign(user_notices, {}, before)
    for user, head in before.items():
        seqs = [entry.seq for entry in assigned.fresh if entry.user_id == user]
        assert seqs == list(range(head + 1, head + 1 + len(seqs)))
        assert assigned.heads[user] == head + len(seqs)


@given(batches, heads, st.integers(0, 30))
def test_interrupted_batch_is_completed_with_same_seqs(
    user_notices: list[UserNotice], before: dict[str, int], cut: int
) -> None:
    first = assign(user_notices, {}, before)
    on_disk = first.fresh[:cut]
    again = assign(user_notices, stored(on_disk), before)
    assert again.entries == first.entries
    assert again.fresh == first.fresh[cut:]


@given(batches, heads)
def test_repeated_batch_changes_nothing(user_notices: list[UserNotice], before: dict[str, int]) -> None:
    first = assign(user_notices, {}, before)
    again = assign(user_notices, stored(first.fresh), first.heads)
    assert again.entries == first.entries
    assert again.fresh == []
    assert again.heads == first.heads


@given(batches, batches, heads, st.integers(0, 30))
def test_later_entry_never_reuses_seq(
    user_notices: list[UserNotice], more: list[UserNotice], before: dict[str, int], cut: int
) -> None:
    first = assign(user_notices, {}, before)
    later = [
        UserNotice(Notice(f"later-{user_notice.notice.key}", "a:b", 0, b"{}"), user_notice.user_ids)
        for user_notice in more
    ]
    both = assign([*user_notices, *later], stored(first.fresh[:cut]), before)
    everything = [entry for entries in both.entries.values() for entry in entries]
    assert len({(entry.user_id, entry.seq) for entry in everything}) == len(everything)
    for user, head in both.heads.items():
        seqs = sorted(entry.seq for entry in everything if entry.user_id == user)
        assert seqs == list(range(before[user] + 1, head + 1))


def test_every_entry_has_unique_id() -> None:
    assigned = assign(batch([("a", "b"), ("a", "b")]), {}, {"a": 0, "b": 0})
    assert len({entry.id for entry in assigned.fresh}) == 4
