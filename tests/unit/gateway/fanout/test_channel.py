"""The states of a subscriber: attempts and checks."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.channel import Channel
from gateway.fanout.hub import Hub
from gateway.fanout.stream import OVERDUE_S
from gateway.fanout.subscriber import SubscriberState
from shared.bus.delivery import (
    Delivery,
    DeliveryKind,
)
from tests.unit.gateway.fanout.hub_support import (
    ROOM,
    UNORDERED,
    RecordingSink,
    go_live,
    greeting,
    listener,
    message,
    settle,
)


def test_failed_attempt_leaves_a_listener_where_it_was() -> None:
    hub = Hub()
    sink, stranger = RecordingSink("a"), RecordingSink("b")
    hub.join(sink, ROOM)
    assert go_live(hub, sink, ROOM, 0, [], 0.0)
    hub.join(sink, ROOM)
    hub.join(stranger, ROOM)
    hub.deliver(Delivery(ROOM, DeliveryKind.ORDERED, 1, "", b"one"), 0.0)
    assert hub.channels[ROOM].resume(sink, 0.0)
    assert not hub.channels[ROOM].resume(stranger, 0.0)
    settle(hub, 1.0)
    assert sink.got == ["one"]
    assert stranger.got == []


def test_suspended_socket_continues_only_after_its_check() -> None:
    hub = Hub()
    stays, goes = listener(hub, "stays"), listener(hub, "goes")
    hub.deliver(message(1), 0.0)
    hub.suspend(ROOM, 1)
    hub.deliver(message(2), 0.0)
    hub.deliver(Delivery(ROOM, UNORDERED, 0, "evt_1", b"event"), 0.0)
    settle(hub, 0.0)
    assert stays.take() == goes.take() == ["1"]
    hub.channels[ROOM].pass_check(stays, 1, 2, 1.0)
    hub.leave(goes, ROOM)
    hub.deliver(message(3), 1.0)
    settle(hub, 1.0)
    assert (stays.got, goes.got) == (["2", "event", "3"], [])


def test_earlier_check_does_not_end_a_later_suspension() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.suspend(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.suspend(ROOM, 2)
    hub.channels[ROOM].pass_check(sink, 1, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == []
    hub.channels[ROOM].pass_check(sink, 2, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1"]


def test_suspension_does_not_affect_a_first_attempt() -> None:
    hub = Hub()
    listener(hub, "other")
    sink = RecordingSink("u")
    hub.join(sink, ROOM)
    hub.suspend(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.channels[ROOM].pass_check(sink, 1, 1, 0.0)
    assert sink.got == []
    assert go_live(hub, sink, ROOM, 0, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "1"]


def test_answer_of_attempt_is_outdated_after_a_check_began() -> None:
    hub = Hub()
    again, fresh = listener(hub, "again"), RecordingSink("fresh")
    for sink in (again, fresh):
        hub.join(sink, ROOM)
        assert not hub.channels[ROOM].take_answer_outdated(sink)
    hub.suspend(ROOM, 1)
    for sink in (again, fresh):
        assert hub.channels[ROOM].take_answer_outdated(sink)
        assert not hub.channels[ROOM].take_answer_outdated(sink)
    assert go_live(hub, fresh, ROOM, 0, greeting(), 0.0)
    assert hub.channels[ROOM].resume(again, 0.0)  # its attempt failed: it listened before, so the check suspends it
    hub.deliver(message(1), 0.0)
    settle(hub, 0.0)
    assert (fresh.got, again.got) == (["subscribed", "1"], [])
    hub.channels[ROOM].pass_check(again, 1, 1, 0.0)
    settle(hub, 0.0)
    assert again.got == ["1"]


def test_joining_socket_is_not_a_listener() -> None:
    hub = Hub()
    again, suspended, fresh = listener(hub, "again"), listener(hub, "suspended"), RecordingSink("fresh")
    hub.suspend(ROOM, 1)
    hub.channels[ROOM].pass_check(again, 1, 0, 0.0)
    for sink in (again, fresh):
        hub.join(sink, ROOM)
    assert set(hub.sinks_of(ROOM)) == {again, suspended, fresh}
    assert set(hub.channels[ROOM].listeners()) == {again, suspended}


def test_resubscription_while_suspended_goes_live_on_its_own_answer() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.suspend(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.join(sink, ROOM)
    hub.deliver(message(2), 0.0)
    hub.channels[ROOM].pass_check(sink, 1, 2, 0.0)
    assert sink.got == []
    assert go_live(hub, sink, ROOM, 2, greeting(), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "1", "2"]


def test_failed_attempt_does_not_end_a_suspension() -> None:
    hub = Hub()
    sink = listener(hub)
    hub.suspend(ROOM, 1)
    hub.deliver(message(1), 0.0)
    hub.join(sink, ROOM)
    assert hub.channels[ROOM].resume(sink, 0.0)
    settle(hub, 0.0)
    assert sink.got == []
    hub.channels[ROOM].pass_check(sink, 1, 1, 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1"]


suspension_steps = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.just(0)),
        st.tuples(st.just("lost"), st.just(0)),
        st.tuples(st.just("suspend"), st.just(0)),
        st.tuples(st.just("checked"), st.integers(0, 2)),
        st.tuples(st.just("flush"), st.just(0)),
    ),
    max_size=40,
)


@given(suspension_steps)
def test_checks_neither_lose_nor_repeat_messages(script: list[tuple[str, int]]) -> None:
    hub = Hub()
    sinks = [listener(hub, f"u{number}") for number in range(3)]
    head = check = 0

    def fill_gaps() -> None:
        while hub.gaps:
            gap = hub.channels[hub.gaps.pop()].stream.missing()
            if gap is not None:
                frames = [[b"%d" % position] for position in range(gap.after + 1, gap.through + 1)]
                hub.fill(gap, gap.after + 1, frames, 0.0)

    for step, number in script:
        match step:
            case "message" | "lost":
                head += 1
                if step == "message":
                    hub.deliver(message(head), 0.0)
            case "suspend":
                check += 1
                hub.suspend(ROOM, check)
            case "checked":
                hub.channels[ROOM].pass_check(sinks[number], check, head, 0.0)
                fill_gaps()
            case _:
                settle(hub, 0.0)
    for sink in sinks:
        hub.channels[ROOM].pass_check(sink, check, head, 0.0)
    hub.note_head_and_gap(ROOM, head)
    fill_gaps()
    hub.note_overdue(OVERDUE_S + 1)
    fill_gaps()
    settle(hub, 0.0)
    assert [sink.got for sink in sinks] == [[str(position) for position in range(1, head + 1)]] * 3


# States -------------------------------------------------------------------------------------------------------------


def state_of(channel: Channel, sink: RecordingSink) -> SubscriberState | str | None:
    """Return the state of a socket by the name in the diagram; None if it is not on the channel."""
    if (subscriber := channel.waiting.get(sink)) is not None:
        return subscriber.state
    if sink in channel.stream.ahead:
        return "AHEAD"
    return "LIVE" if sink in channel.live else None


def test_states_follow_the_diagram() -> None:
    hub = Hub()
    other, sink = listener(hub, "other", position=1), RecordingSink("u")
    channel = hub.join(sink, ROOM)
    assert state_of(channel, sink) is SubscriberState.JOINING
    channel.linger(sink, 0.0)
    assert state_of(channel, sink) is SubscriberState.LINGERING
    hub.join(sink, ROOM)
    channel.go_live(sink, 2, [], 0.0)
    assert state_of(channel, sink) == "AHEAD"
    hub.deliver(message(2), 0.0)
    assert state_of(channel, sink) == "LIVE"
    channel.suspend(1)
    assert state_of(channel, sink) is state_of(channel, other) is SubscriberState.SUSPENDED
    hub.join(sink, ROOM)
    assert state_of(channel, sink) is SubscriberState.JOINING
    assert channel.resume(sink, 0.0)
    assert state_of(channel, sink) is SubscriberState.SUSPENDED
    channel.pass_check(sink, 1, 2, 0.0)
    assert state_of(channel, sink) == "LIVE"
    hub.leave(sink, ROOM)
    assert state_of(channel, sink) is None
