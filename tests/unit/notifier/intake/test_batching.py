"""Batches cut into pieces of bounded size, without events that are done."""

from hypothesis import given
from hypothesis import strategies as st

from notifier.events.audience import Listeners, Users
from notifier.events.notifications import Addressed, Notice, Record, pending_of
from notifier.intake.batching import (
    DELIVERED_AT_ONCE_MAX_BYTES,
    by_recipients,
    by_size,
)
from shared.bus.delivery import Delivery, DeliveryKind


def notice(key: str, created_at_ms: int = 0) -> Notice:
    return Notice(key, "a:b", created_at_ms, b"{}")


def to_users(key: str, count: int) -> Addressed:
    return Addressed(notice(key), Users(tuple(f"u{number}" for number in range(count))))


def recipients(some: list[Addressed]) -> int:
    return sum(len(item.audience.ids) if isinstance(item.audience, Users) else 1 for item in some)


counts = st.lists(st.integers(0, 25), max_size=12)  # 0 stands for listeners


@given(counts, st.integers(1, 10))
def test_pieces_are_bounded_and_complete(sizes: list[int], recipients_max: int) -> None:
    items = [
        to_users(str(key), count) if count else Addressed(notice(str(key)), Listeners("all"))
        for key, count in enumerate(sizes)
    ]
    pieces = list(by_recipients(items, recipients_max))
    assert all(0 < recipients(piece) <= recipients_max for piece in pieces)
    together: dict[str, list[str]] = {}
    for piece in pieces:
        for item in piece:
            names = item.audience.ids if isinstance(item.audience, Users) else ("listeners",)
            together.setdefault(item.notice.key, []).extend(names)
    assert list(together) == [item.notice.key for item in items]
    for item in items:
        names = item.audience.ids if isinstance(item.audience, Users) else ("listeners",)
        assert tuple(together[item.notice.key]) == names


def test_small_events_share_a_piece() -> None:
    items = [to_users(str(key), 1) for key in range(500)]
    assert list(by_recipients(items, 1000)) == [items]


def test_deliveries_are_split_by_size_in_order() -> None:
    frame = b"x" * (DELIVERED_AT_ONCE_MAX_BYTES // 4)
    deliveries = [Delivery("all", DeliveryKind.UNORDERED, 0, str(number), frame) for number in range(12)]
    pieces = list(by_size(deliveries))
    assert [delivery for piece in pieces for delivery in piece] == deliveries
    assert [len(piece) for piece in pieces] == [5, 5, 2]
    assert list(by_size([])) == []


def test_done_events_are_skipped_and_begun_ones_resumed() -> None:
    fresh, done, begun, begun_for_listeners = (to_users(key, 1) for key in ("fresh", "done", "begun", "listeners"))
    records = {
        "done": Record("done", 7, notice("done", 7), is_done=True),
        "begun": Record("begun", 7, notice("begun", 7)),
        "listeners": Record("listeners", 7),
    }
    pending = pending_of([fresh, done, begun, begun_for_listeners], records)
    assert [(item.notice.key, item.notice.created_at_ms) for item in pending] == [
        ("fresh", 0),
        ("begun", 7),
        ("listeners", 7),
    ]


def test_only_notices_for_inboxes_are_stored() -> None:
    assert to_users("a", 2).to_record() == Record("a", 0, notice("a"))
    assert Addressed(notice("a", 3), Listeners("all")).to_record() == Record("a", 3)
