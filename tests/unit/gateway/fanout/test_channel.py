"""The states of a subscriber: attempts and checks."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.hub import Hub
from gateway.fanout.stream import OVERDUE_S
from shared.bus.delivery import (
    Delivery,
    DeliveryClass,
)
from tests.unit.gateway.fanout.hub_support import (
    LOSSLESS,
    ROOM,
    RecordingSink,
    go_live,
    greeting,
    listener,
    message,
    settle,
)


def test_attempt_that_comes_to_nothing_leaves_a_listener_where_it_was() -> None:
    hub = Hub()
    sink, stranger = RecordingSink("a"), RecordingSink("b")
    hub.join(sink, ROOM)
    assert go_live(hub, sink, ROOM, 0, [], 0.0)
    hub.join(sink, ROOM)
    hub.join(stranger, ROOM)
    hub.deliver(Delivery(ROOM, DeliveryClass.LOSSLESS, 1, "", b"one"), 0.0)
    assert hub.channels[ROOM].resume(sink, 0.0)
    assert not hub.channels[ROOM].resume(stranger, 0.0)
    settle(hub, 1.0)
    assert sink.got == ["one"]
    assert stranger.got == []


def test_who_is_held_sees_nothing_until_it_is_checked_and_then_goes_on() -> None:
    hub = Hub()
    stays, goes = listener(hub, "stays"), listener(hub, "goes")
    hub.deliver(message(1), 0.0)
    hub.hold(ROOM, 1)
    hub.deliver(message(2), 0.0)
    hub.deliver(Delivery(ROOM, LOSSLESS, 0, "evt_1", b"event"), 0.0)
    settle(hub, 0.0)
    assert stays.take() == goes.take() == ["1"]
    hub.channels[ROOM].pass_check(stays, 1, 2, 1.0)
    hub.leave(goes, ROOM)
    hub.deliver(message(3), 1.0)
    settle(hub, 1.0)
    assert (stays.got, goes.got) == (["2", "event", "3"], [])


def test_earlier_check_frees_nobody_whom_a_later_one_holds() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.hold(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.hold(ROOM, 2)
    hub.channels[ROOM].pass_check(sink, 1, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == []
    hub.channels[ROOM].pass_check(sink, 2, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1"]


def test_hold_leaves_alone_who_is_joining_by_itself() -> None:
    hub = Hub()
    listener(hub, "other")
    sink = RecordingSink("u")
    hub.join(sink, ROOM)
    hub.hold(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.channels[ROOM].pass_check(sink, 1, 1, 0.0)
    assert sink.got == []
    assert go_live(hub, sink, ROOM, 0, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "1"]


def test_who_asks_while_a_check_begins_has_to_ask_again() -> None:
    hub = Hub()
    again, fresh = listener(hub, "again"), RecordingSink("fresh")
    for sink in (again, fresh):
        hub.join(sink, ROOM)
        assert not hub.channels[ROOM].must_ask_again(sink)
    hub.hold(ROOM, 1)
    for sink in (again, fresh):
        assert hub.channels[ROOM].must_ask_again(sink)
        assert not hub.channels[ROOM].must_ask_again(sink)
    assert go_live(hub, fresh, ROOM, 0, greeting(), 0.0)
    assert hub.channels[ROOM].resume(
        again, 0.0
    )  # its attempt failed: it listened before, and waits for the check like all
    hub.deliver(message(1), 0.0)
    settle(hub, 0.0)
    assert (fresh.got, again.got) == (["subscribed", "1"], [])
    hub.channels[ROOM].pass_check(again, 1, 1, 0.0)
    settle(hub, 0.0)
    assert again.got == ["1"]


def test_who_has_only_asked_is_no_listener() -> None:
    hub = Hub()
    again, held, fresh = listener(hub, "again"), listener(hub, "held"), RecordingSink("fresh")
    hub.hold(ROOM, 1)
    hub.channels[ROOM].pass_check(again, 1, 0, 0.0)
    for sink in (again, fresh):
        hub.join(sink, ROOM)
    assert set(hub.sinks_of(ROOM)) == {again, held, fresh}
    assert set(hub.channels[ROOM].listeners()) == {again, held}


def test_who_subscribes_again_while_held_is_admitted_by_that_answer() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.hold(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.join(sink, ROOM)
    hub.deliver(message(2), 0.0)
    hub.channels[ROOM].pass_check(sink, 1, 2, 0.0)
    assert sink.got == []
    assert go_live(hub, sink, ROOM, 2, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "1", "2"]


def test_attempt_that_comes_to_nothing_does_not_free_who_is_held() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.hold(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.join(sink, ROOM)
    assert hub.channels[ROOM].resume(sink, 0.0)
    settle(hub, 0.0)
    assert sink.got == []
    hub.channels[ROOM].pass_check(sink, 1, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1"]


held_steps = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.just(0)),
        st.tuples(st.just("lost"), st.just(0)),
        st.tuples(st.just("hold"), st.just(0)),
        st.tuples(st.just("checked"), st.integers(0, 2)),
        st.tuples(st.just("flush"), st.just(0)),
    ),
    max_size=40,
)


@given(held_steps)
def test_checks_cost_no_message_and_repeat_none(script: list[tuple[str, int]]) -> None:
    hub = Hub()
    sinks = [listener(hub, f"u{number}") for number in range(3)]
    head = check = 0

    def fill_gaps() -> None:
        while hub.gaps:
            gap = hub.channels[hub.gaps.pop()].stream.missing()
            if gap is not None:
                frames = [b"%d" % seq for seq in range(gap.after + 1, gap.through + 1)]
                hub.fill(gap, gap.after + 1, frames, 0.0)

    for step, number in script:
        match step:
            case "message" | "lost":
                head += 1
                if step == "message":
                    hub.deliver(message(head), 0.0)
            case "hold":
                check += 1
                hub.hold(ROOM, check)
            case "checked":
                hub.channels[ROOM].pass_check(sinks[number], check, head, 0.0)
                fill_gaps()
            case _:
                settle(hub, 0.0)
    for sink in sinks:
        hub.channels[ROOM].pass_check(sink, check, head, 0.0)
    hub.note_head(ROOM, head)
    fill_gaps()
    hub.note_overdue(OVERDUE_S + 1)
    fill_gaps()
    settle(hub, 0.0)
    assert [sink.got for sink in sinks] == [[str(seq) for seq in range(1, head + 1)]] * 3
