"""Channels, subscribers and deliveries of the hub."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.flush_schedule import GATHER_MIN_S
from gateway.fanout.hub import SEEN_KEYS_MAX, Hub
from gateway.fanout.resequencer import Gap
from gateway.fanout.stream import OVERDUE_S
from gateway.fanout.wire import text_frame
from shared.bus.delivery import (
    Delivery,
    community_channel,
    market_channel,
)
from tests.unit.gateway.fanout.hub_support import (
    ROOM,
    UNORDERED,
    RecordingSink,
    go_live,
    go_live_prices,
    go_live_unordered,
    greeting,
    listener,
    message,
    price,
    settle,
    typing,
)


def test_listeners_get_gathered_messages_in_one_write() -> None:
    hub = Hub()
    sinks = [listener(hub, f"u{number}") for number in range(3)]
    for position in (1, 2, 3):
        hub.deliver(message(position), 10.0)
    hub.schedule.flush(10.0)
    assert [(sink.got, sink.writes) for sink in sinks] == [(["1", "2", "3"], 1)] * 3


def test_every_kind_of_write_is_counted() -> None:
    """Gathered items, greeting and replay, a transient item that excludes one socket, and a price."""
    hub = Hub()
    sinks = [listener(hub, f"u{number}") for number in range(3)]
    late = RecordingSink("late")
    hub.join(late, ROOM)
    for position in (1, 2):
        hub.deliver(message(position), 10.0)
    hub.deliver(typing("t", without="u1"), 10.0)
    go_live(hub, late, ROOM, 0, greeting(), 10.0)
    hub.join(late, market_channel("EUR"))
    go_live_prices(hub, late, market_channel("EUR"), 10, 10.0)
    hub.deliver(price(1), 10.0)
    settle(hub, 10.0)
    everybody = [*sinks, late]
    assert hub.schedule.written.frames == sum(len(sink.got) for sink in everybody) == 12
    assert hub.schedule.written.writes == sum(sink.writes for sink in everybody)
    assert hub.schedule.written.size_bytes == sum(
        len(text_frame(got.encode())) for sink in everybody for got in sink.got
    )
    assert hub.schedule.written.sample is not None
    assert hub.schedule.written.sample.startswith(text_frame(b"1"))


def test_lane_is_due_at_once_when_idle_and_after_5_ms_under_load() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.deliver(message(1), 10.0)
    assert hub.schedule.next_due_s == 10.0
    hub.schedule.flush(10.0)
    hub.deliver(message(2), 10.001)
    assert hub.schedule.next_due_s == pytest.approx(10.0 + GATHER_MIN_S)
    hub.schedule.flush(10.004)
    assert sink.got == ["1"]
    hub.schedule.flush(10.0 + GATHER_MIN_S)
    assert sink.got == ["1", "2"]
    assert hub.schedule.next_due_s is None


def test_greeting_precedes_items_buffered_during_the_attempt() -> None:
    hub = Hub()
    sink = RecordingSink("u")
    hub.join(sink, ROOM)
    for position in (4, 5, 6):
        hub.deliver(message(position), 0.0)
    assert go_live(hub, sink, ROOM, 5, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "6"]


def test_socket_that_has_left_does_not_go_live() -> None:
    hub = Hub()
    sink = RecordingSink("u")
    hub.join(sink, ROOM)
    assert hub.leave(sink, ROOM)
    assert not go_live(hub, sink, ROOM, 0, greeting(), 0.0)
    assert not go_live_unordered(hub, sink, ROOM, greeting())
    assert go_live_prices(hub, sink, ROOM, 1.0, 0.0) is None
    assert sink.got == []


def test_late_socket_waits_until_the_channel_catches_up() -> None:
    hub = Hub()
    old = listener(hub, "old", position=1)
    new = RecordingSink("new")
    hub.join(new, ROOM)
    go_live(hub, new, ROOM, 3, greeting(), 0.0)
    for position in (2, 3, 4):
        hub.deliver(message(position), 0.0)
    settle(hub, 0.0)
    assert old.got == ["2", "3", "4"]
    assert new.got == ["subscribed", "4"]


def test_late_socket_makes_a_gap_after_a_second() -> None:
    hub = Hub()
    old = listener(hub, "old", position=1)
    new = RecordingSink("new")
    hub.join(new, ROOM)
    go_live(hub, new, ROOM, 3, [], 5.0)
    hub.note_overdue(5.0 + OVERDUE_S)
    assert hub.gaps == set()
    hub.note_overdue(5.1 + OVERDUE_S)
    assert hub.gaps == {ROOM}
    gap = hub.channels[ROOM].stream.missing()
    assert gap is not None
    assert (gap.after, gap.through) == (1, 3)
    hub.fill(gap, 2, [[b"2"], [b"3"]], 7.0)
    hub.deliver(message(4), 7.0)
    settle(hub, 7.0)
    assert (old.got, new.got) == (["2", "3", "4"], ["4"])


def test_late_socket_goes_live_after_an_unfillable_gap() -> None:
    hub = Hub()
    listener(hub, "old", position=1)
    new = RecordingSink("new")
    hub.join(new, ROOM)
    go_live(hub, new, ROOM, 3, [], 0.0)
    hub.note_overdue(OVERDUE_S + 1)
    gap = hub.channels[ROOM].stream.missing()
    assert gap is not None
    hub.fill(gap, gap.through + 1, [], 2.0)
    hub.deliver(message(4), 2.0)
    settle(hub, 2.0)
    assert new.got == ["4"]


def test_gap_filled_after_a_rewind_skips_nothing() -> None:
    """The stream has gone back for another socket while the request for the gap was in flight."""
    hub = Hub()
    first = listener(hub, "first", 5)
    hub.deliver(message(8), 0.0)
    gap = hub.channels[ROOM].stream.missing()
    assert gap == Gap(ROOM, 5, 7)
    second = listener(hub, "second", 3)
    hub.fill(gap, 6, [[b"6"], [b"7"]], 0.0)
    rest = hub.channels[ROOM].stream.missing()
    assert rest == Gap(ROOM, 3, 5)
    hub.fill(rest, 4, [[b"4"], [b"5"]], 0.0)
    settle(hub, 0.0)
    assert (first.take(), second.take()) == (["6", "7", "8"], ["4", "5", "6", "7", "8"])


def test_gap_is_noted_at_once_and_early_items_wait() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.deliver(message(3), 0.0)
    assert hub.gaps == {ROOM}
    gap = hub.channels[ROOM].stream.missing()
    assert gap is not None
    assert (gap.after, gap.through) == (0, 2)
    settle(hub, 0.0)
    assert sink.got == []
    hub.fill(gap, 1, [[b"1"], [b"2"]], 1.0)
    settle(hub, 1.0)
    assert sink.got == ["1", "2", "3"]


def test_all_frames_of_a_missing_item_are_delivered_once() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.deliver(message(2), 0.0)
    gap = hub.channels[ROOM].stream.missing()
    assert gap is not None
    for _ in range(2):
        hub.fill(gap, 1, [[b"joined", b"1"]], 1.0)
    settle(hub, 1.0)
    assert sink.got == ["joined", "1", "2"]


def test_resubscription_continues_from_its_position() -> None:
    hub = Hub()
    other, sink = listener(hub, "other"), listener(hub, "u")
    hub.deliver(message(1), 0.0)
    hub.join(sink, ROOM)
    hub.deliver(message(2), 0.0)
    go_live(hub, sink, ROOM, 3, greeting(), 0.0)
    hub.deliver(message(3), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1", "subscribed", "2", "3"]
    assert other.got == ["1", "2", "3"]


@pytest.mark.parametrize("others", [0, 1])
def test_resubscription_keeps_early_items(others: int) -> None:
    hub = Hub()
    sinks = [listener(hub, f"other{number}", position=5) for number in range(others)]
    sink = listener(hub, "u", position=5)
    hub.deliver(message(7), 0.0)
    hub.join(sink, ROOM)
    if others:
        hub.deliver(message(6), 0.0)
    go_live(hub, sink, ROOM, 7, greeting(), 0.0)
    if not others:
        gap = hub.channels[ROOM].stream.missing()
        assert gap is not None
        hub.fill(gap, 6, [[b"6"]], 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "6", "7"]
    assert all(other.got == ["6", "7"] for other in sinks)


@pytest.mark.parametrize("others", [0, 1])
def test_resubscription_reveals_lost_items(others: int) -> None:
    hub = Hub()
    for number in range(others):
        listener(hub, f"other{number}", position=5)
    sink = listener(hub, "u", position=5)
    hub.join(sink, ROOM)
    go_live(hub, sink, ROOM, 6, [], 0.0)
    assert hub.gaps == {ROOM}
    assert hub.channels[ROOM].stream.missing() == (ROOM, 5, 6)


def test_channel_is_deleted_with_its_last_listener() -> None:
    hub = Hub()
    one, two = listener(hub, "one"), listener(hub, "two")
    assert not hub.leave(one, ROOM)
    assert hub.leave(two, ROOM)
    assert not hub.leave(two, ROOM)
    assert hub.channels == {}
    hub.deliver(message(1), 0.0)
    assert hub.schedule.next_due_s is None


def test_leaving_socket_gets_the_gathered_items_and_no_more() -> None:
    hub = Hub()
    sink, other = listener(hub, "u"), listener(hub, "other")
    hub.deliver(message(1), 0.0)
    hub.leave(sink, ROOM)
    hub.deliver(message(2), 0.0)
    settle(hub, 0.0)
    assert (sink.got, other.got) == (["1"], ["1", "2"])


def test_dropped_socket_leaves_every_channel() -> None:
    hub = Hub()
    sink = listener(hub, "u")
    listener(hub, "other")
    hub.join(sink, "inbox:u")
    hub.join(sink, market_channel("EUR"))
    assert sorted(hub.drop(sink)) == ["inbox:u", "market:EUR"]
    assert sink not in hub.sinks_of(ROOM)
    assert hub.drop(sink) == []


def test_transient_item_keeps_its_place_in_order() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.deliver(message(1), 0.0)
    hub.deliver(typing("a"), 0.0)
    hub.deliver(message(2), 0.0)
    hub.deliver(typing("b", without="nobody"), 0.0)
    hub.deliver(message(3), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1", "a", "2", "b", "3"]


@pytest.mark.parametrize("without", ["u1", "s1"])
def test_transient_item_excludes_a_user_or_a_session(without: str) -> None:
    hub = Hub()
    sinks = {
        (user, session): RecordingSink(user, session) for user, session in (("u1", "s1"), ("u1", "s2"), ("u2", "s3"))
    }
    for sink in sinks.values():
        hub.join(sink, ROOM)
        go_live(hub, sink, ROOM, 0, [], 0.0)
    hub.deliver(typing("x", without), 0.0)
    settle(hub, 0.0)
    for (user, session), sink in sinks.items():
        assert sink.got == ([] if without in (user, session) else ["x"])


def test_joining_socket_gets_no_transient_items() -> None:
    hub = Hub()
    sink = RecordingSink("u")
    hub.join(sink, ROOM)
    hub.deliver(typing("x"), 0.0)
    hub.deliver(typing("y", "somebody"), 0.0)
    go_live(hub, sink, ROOM, 0, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed"]


def community_event(text: str, key: str) -> Delivery:
    return Delivery(community_channel("c"), UNORDERED, 0, key, text.encode())


def test_repeated_unordered_item_is_dropped() -> None:
    hub = Hub()
    sink = RecordingSink("u")
    hub.join(sink, community_channel("c"))
    go_live_unordered(hub, sink, community_channel("c"), greeting())
    for text, key in (("a", "1"), ("b", "2"), ("a", "1"), ("c", ""), ("c", "")):
        hub.deliver(community_event(text, key), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "a", "b", "c", "c"]


def test_deduplication_is_per_channel_and_bounded() -> None:
    hub = Hub()
    sink = RecordingSink("u")
    for name in (community_channel("c"), "all"):
        hub.join(sink, name)
        go_live_unordered(hub, sink, name)
    hub.deliver(community_event("a", "1"), 0.0)
    hub.deliver(Delivery("all", UNORDERED, 0, "1", b"b"), 0.0)
    for number in range(SEEN_KEYS_MAX):
        hub.deliver(community_event("x", f"x{number}"), 0.0)
    hub.deliver(community_event("a", "1"), 0.0)
    settle(hub, 0.0)
    assert sorted(sink.got)[:3] == ["a", "a", "b"]


def test_resubscription_to_an_unordered_channel_misses_nothing() -> None:
    hub = Hub()
    name = community_channel("c")
    sink = RecordingSink("u")
    hub.join(sink, name)
    go_live_unordered(hub, sink, name)
    hub.join(sink, name)
    hub.deliver(community_event("meanwhile", "1"), 0.0)
    assert go_live_unordered(hub, sink, name, greeting())
    hub.deliver(community_event("after", "2"), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["meanwhile", "subscribed", "after"]
    assert hub.leave(sink, name)


@given(st.permutations([0, 1, 2, 3]), st.lists(st.sampled_from(["message", "typing", "leave", "flush"]), max_size=30))
def test_one_socket_does_not_affect_the_others(order: list[int], script: list[str]) -> None:
    """The same deliveries write the same to all others, with or without a neighbour that joins and leaves."""
    received = []
    for restless in (False, True):
        hub = Hub()
        sinks = [listener(hub, f"u{number}") for number in order[:3]]
        neighbour = RecordingSink("neighbour")
        position, now_s = 0, 0.0
        for step in script:
            match step:
                case "message":
                    position += 1
                    hub.deliver(message(position), now_s)
                case "typing":
                    hub.deliver(typing(f"t{position}"), now_s)
                case "leave" if restless:
                    hub.drop(neighbour)
                    hub.join(neighbour, ROOM)
                    go_live(hub, neighbour, ROOM, position, greeting(), now_s)
                case "flush":
                    now_s += 0.01
                    hub.schedule.flush(now_s)
        settle(hub, now_s)
        received.append([sink.got for sink in sinks])
    assert received[0] == received[1]
