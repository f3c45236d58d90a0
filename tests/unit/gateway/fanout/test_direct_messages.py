"""Direct messages, which reach sockets that have not subscribed."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.fanout.flush_schedule import GATHER_MIN_S
from gateway.fanout.hub import Hub
from gateway.fanout.resequencer import Gap
from gateway.fanout.stream import OVERDUE_S
from shared.bus.delivery import (
    Delivery,
    DeliveryKind,
    room_channel,
    user_channel,
)
from shared.commands.chat_queries import DirectMessagePosition
from tests.unit.gateway.fanout.hub_support import (
    ROOM,
    RecordingSink,
    go_live,
    go_live_unordered,
    greeting,
    message,
    settle,
    typing,
)

whose = st.integers(0, 3)


def direct(position: int, user: str) -> Delivery:
    return message(position, user_channel(user), key="r")


def user_socket(hub: Hub, user: str, session: str = "") -> RecordingSink:
    sink = RecordingSink(user, session)
    hub.join(sink, user_channel(user))
    go_live_unordered(hub, sink, user_channel(user))
    return sink


@pytest.mark.parametrize("order", ["a1 b1 a2 b2", "a1 a2 b1 b2", "b1 b2 a1 a2", "a1 b1 b2 a2", "a1 a2 a1 b1 b2 b1"])
def test_direct_message_reaches_every_socket_of_both_users_once(order: str) -> None:
    hub = Hub()
    sinks = [user_socket(hub, "a", "s1"), user_socket(hub, "a", "s2"), user_socket(hub, "b", "s3")]
    stranger = user_socket(hub, "c")
    for step in order.split():
        hub.deliver(direct(int(step[1:]), step[0]), 0.0)
    settle(hub, 0.0)
    assert [sink.got for sink in sinks] == [["1", "2"]] * 3
    assert stranger.got == []


def test_subscriber_gets_a_direct_message_once() -> None:
    hub = Hub()
    sink, other = user_socket(hub, "a"), user_socket(hub, "b")
    hub.join(sink, ROOM)
    hub.deliver(direct(1, "a"), 0.0)
    hub.deliver(direct(1, "b"), 0.0)
    go_live(hub, sink, ROOM, 1, greeting(), 0.0)
    hub.deliver(direct(2, "b"), 0.0)
    hub.deliver(direct(2, "a"), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["subscribed", "2"]  # the answer's position includes the first message
    assert other.got == ["1", "2"]


def test_resume_knows_the_direct_messages_received_implicitly() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.deliver(direct(3, "a"), 0.0)
    hub.deliver(direct(4, "a"), 0.0)
    hub.suspend(ROOM, 1)  # a check in between has no effect
    hub.channels[ROOM].pass_check(sink, 1, 4, 0.0)
    hub.join(sink, ROOM)
    hub.deliver(direct(5, "a"), 0.0)  # waits for the answer
    assert hub.channels[ROOM].received_implicitly(sink) == range(3, 5)
    hub.channels[ROOM].resume(sink, 0.0)  # the attempt failed
    hub.join(sink, ROOM)
    assert hub.channels[ROOM].received_implicitly(sink) == range(3, 6)
    go_live(hub, sink, ROOM, 5, greeting(), 0.0, replayed=True)
    hub.join(sink, ROOM)
    assert hub.channels[ROOM].received_implicitly(sink) == range(0)  # an explicit resubscription is replayed in full
    settle(hub, 0.0)
    assert sink.got == ["3", "4", "5", "subscribed"]


def test_direct_message_waits_for_a_retried_resume() -> None:
    hub = Hub()
    sink, other = user_socket(hub, "a"), user_socket(hub, "b")
    hub.join(sink, ROOM)
    assert not hub.channels[ROOM].resume(sink, 0.0)
    hub.channels[ROOM].linger(sink, 0.0)
    hub.deliver(direct(5, "a"), 0.0)
    hub.deliver(direct(5, "b"), 0.0)
    settle(hub, 0.0)
    assert (sink.got, other.got) == ([], ["5"])
    hub.join(sink, ROOM)
    assert hub.channels[ROOM].received_implicitly(sink) == range(0)
    assert hub.give_up(100.0) == []  # the retry is in progress
    go_live(hub, sink, ROOM, 5, [*greeting(), *greeting("4"), *greeting("5")], 0.0, replayed=True)
    hub.deliver(direct(6, "a"), 0.0)
    settle(hub, 1.0)
    assert sink.got == ["subscribed", "4", "5", "6"]


def test_abandoned_attempt_leaves_or_closes_if_direct_messages_wait() -> None:
    hub = Hub()
    sink, stranger = user_socket(hub, "a"), user_socket(hub, "c")
    for one in (sink, stranger):
        hub.join(one, ROOM)
        hub.channels[ROOM].linger(one, 0.0)
    for position in (5, 6):
        hub.deliver(direct(position, "a"), 0.0)
    assert hub.give_up(1.0) == []
    assert hub.give_up(11.0) == [(stranger, ROOM)]
    hub.leave(stranger, ROOM)
    hub.deliver(direct(7, "a"), 11.0)
    settle(hub, 12.0)
    assert (sink.got, stranger.got) == ([], []), "what was missed would be hidden behind them"
    assert (sink.is_closed_for_resume, stranger.is_closed_for_resume) == (True, False)
    hub.drop(sink)
    assert hub.give_up(20.0) == []


@pytest.mark.parametrize("is_lost", [False, True], ids=["live", "found after a loss"])
def test_direct_message_after_an_abandoned_attempt_closes_the_socket(is_lost: bool) -> None:
    """A client that reads slowly may retry later: its replay must not come behind this message."""
    hub = Hub()
    sink, other = user_socket(hub, "a", "s1"), user_socket(hub, "a", "s2")
    hub.join(sink, ROOM)
    hub.channels[ROOM].linger(sink, 0.0)
    for left, name in hub.give_up(11.0):
        hub.leave(left, name)
    if is_lost:
        hub.directs.catch_up("a", "r", [stored(5)], 12.0)
    else:
        hub.deliver(direct(5, "a"), 12.0)
    settle(hub, 12.0)
    assert (sink.got, sink.is_closed_for_resume) == ([], True)
    assert other.is_closed_for_resume is False


def stored(rev: int, created_at_ms: int = 1000) -> DirectMessagePosition:
    return DirectMessagePosition(rev=rev, created_at_ms=created_at_ms)


def test_lost_direct_messages_of_a_new_room_are_gaps() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.directs.withhold()
    hub.deliver(direct(3, "a"), 0.0)
    settle(hub, 0.0)
    assert sink.got == []
    hub.directs.catch_up("a", "r", [stored(1), stored(2), stored(3)], 0.0)
    hub.directs.catch_up("nobody here", "r", [stored(1)], 0.0)
    hub.directs.release(0.0)
    hub.deliver(direct(4, "a"), 0.0)
    assert hub.gaps == {ROOM}
    hub.fill(Gap(ROOM, 0, 2), 1, [[b"1"], [b"2"]], 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1", "2", "3", "4"]


def test_only_connected_sockets_without_the_room_have_missed_messages() -> None:
    hub = Hub()
    knows, late = user_socket(hub, "a", "s1"), RecordingSink("a", "s2")
    hub.deliver(direct(4, "a"), 0.0)
    late.opened_ms = 2000
    hub.join(late, user_channel("a"))
    go_live_unordered(hub, late, user_channel("a"))
    hub.directs.withhold()
    hub.directs.catch_up("a", "r", [stored(3), stored(4)], 0.0)
    hub.directs.release(0.0)
    hub.deliver(direct(5, "a"), 0.0)
    settle(hub, 0.0)
    assert (knows.got, late.got) == (["4", "5"], ["5"])
    assert hub.gaps == set()


def test_each_socket_catches_up_from_its_connection_time() -> None:
    hub = Hub()
    sinks = [user_socket(hub, "a", f"s{number}") for number in range(3)]
    sinks[1].opened_ms, sinks[2].opened_ms = 2000, 3000
    hub.directs.withhold()
    hub.directs.catch_up("a", "r", [stored(1, 1500), stored(2, 2500), stored(3, 3500)], 0.0)
    hub.directs.release(0.0)
    hub.fill(Gap(ROOM, 0, 3), 1, [[b"1"], [b"2"], [b"3"]], 0.0)
    settle(hub, 0.0)
    assert [sink.got for sink in sinks] == [["1", "2", "3"], ["2", "3"], ["3"]]


def test_withheld_messages_beyond_the_bound_close_new_sockets_and_leave_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.fanout.direct_messages.WITHHELD_MAX_BYTES", 10)
    hub = Hub()
    knows = user_socket(hub, "a", "s1")
    hub.deliver(direct(1, "a"), 0.0)
    late = user_socket(hub, "a", "s2")
    hub.directs.withhold()
    for position in range(2, 6):
        assert not late.is_closed_for_resume
        hub.deliver(direct(position, "a"), 0.0)
    assert (late.is_closed_for_resume, knows.is_closed_for_resume, hub.gaps) == (True, False, {ROOM})


def test_messages_seen_before_leaving_a_room_are_not_repeated() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.deliver(direct(1, "a"), 0.0)
    hub.deliver(direct(2, "a"), 0.0)
    settle(hub, 0.0)
    hub.leave(sink, ROOM)
    hub.directs.withhold()
    hub.directs.catch_up("a", "r", [stored(1), stored(2), stored(3)], 0.0)
    hub.directs.release(0.0)
    hub.fill(Gap(ROOM, 2, 3), 3, [[b"3"]], 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1", "2", "3"]


def test_late_line_repeats_nothing_after_leaving_a_room() -> None:
    hub = Hub()
    sink, partner = user_socket(hub, "a"), user_socket(hub, "b")
    hub.deliver(direct(1, "a"), 0.0)
    hub.deliver(direct(1, "b"), 0.0)
    hub.deliver(direct(2, "b"), 0.0)  # for both: the partner's channel has brought the room
    hub.leave(sink, ROOM)
    hub.deliver(direct(2, "a"), 0.0)
    hub.deliver(direct(3, "a"), 0.0)
    hub.deliver(direct(3, "b"), 0.0)
    settle(hub, 0.0)
    assert (sink.got, partner.got) == (["1", "2", "3"], ["1", "2", "3"])


def test_direct_message_without_sockets_leaves_no_channel() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.join(RecordingSink("b"), user_channel("b"))  # not attached yet
    hub.deliver(direct(1, "b"), 0.0)
    assert ROOM not in hub.channels
    hub.deliver(direct(1, "a"), 0.0)
    settle(hub, 0.0)
    assert sink.got == ["1"]
    assert ROOM in hub.drop(sink)
    assert ROOM not in hub.channels


def test_both_users_get_all_when_one_channel_runs_ahead() -> None:
    hub = Hub()
    subscribed, other = user_socket(hub, "a", "s1"), user_socket(hub, "a", "s2")
    hub.join(subscribed, ROOM)
    go_live(hub, subscribed, ROOM, 2, [], 0.0)  # two messages are still in transit
    for position in (1, 2, 3):
        hub.deliver(direct(position, "a"), 0.0)
    settle(hub, 0.0)
    assert (subscribed.got, other.got) == (["3"], ["1", "2", "3"])


def test_other_items_of_a_user_channel_do_not_interfere() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    hub.deliver(typing("read", without="", channel=user_channel("a")), 0.0)
    hub.deliver(direct(1, "a"), 0.0)
    settle(hub, 0.0)
    assert sorted(sink.got) == ["1", "read"]


direct_steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.just("publish"), st.integers(1, 3)),
        st.tuples(st.just("carry"), st.tuples(st.sampled_from("ab"), st.booleans())),
        st.tuples(st.just("carry"), st.tuples(st.sampled_from("ab"), st.just(False))),
        st.tuples(st.just("open"), whose),
        st.tuples(st.just("close"), whose),
        st.tuples(st.just("join"), whose),
        st.tuples(st.just("admit"), whose),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, GATHER_MIN_S, 2.0])),
    ),
    max_size=60,
)


@given(direct_steps)
@example([("open", 2), ("publish", 2), ("carry", ("a", False)), ("open", 0)])  # a's channel lags
@example([("open", 1), ("publish", 1), ("open", 0), ("join", 0)])  # a socket subscribes while a message is in transit
def test_direct_messages_arrive_once_in_order_for_any_interleaving(
    script: list[tuple[str, object]],
) -> None:
    hub = Hub()
    now_s = 100.0
    head = 0
    bus: dict[str, list[int]] = {"a": [], "b": []}
    users = ["a", "a", "b", "b"]
    sinks: dict[int, RecordingSink] = {}
    opened_at: dict[int, int] = {}
    got: dict[int, list[int]] = {}
    heads: dict[int, int] = {}  # of attempts in progress

    def collect() -> None:
        for number, sink in sinks.items():
            got[number] += [int(text) for text in sink.take() if text != "subscribed"]

    def carry(user: str, *, repeat: bool) -> None:
        if bus[user]:
            position = bus[user][0] if repeat else bus[user].pop(0)
            hub.deliver(direct(position, user), now_s)

    def admit(number: int) -> None:
        if number in heads:
            assert go_live(hub, sinks[number], ROOM, heads.pop(number), greeting(), now_s)

    for kind, detail in script:
        match kind, detail:
            case "publish", int(count):
                for _ in range(count):
                    head += 1
                    for user, channel in bus.items():
                        assert user in "ab"
                        channel.append(head)
            case "carry", (str(user), bool(repeat)):
                carry(user, repeat=repeat)
            case "open", int(number) if number not in sinks:
                sinks[number] = user_socket(hub, users[number], f"s{number}")
                opened_at[number], got[number] = head, []
            case "close", int(number) if number in sinks:
                hub.drop(sinks.pop(number))
                heads.pop(number, None)
            case "join", int(number) if number in sinks and number not in heads:
                room = hub.channels.get(ROOM)
                if room is None or room.position_of(sinks[number]) is None:
                    opened_at[number] = head  # the answer's position includes earlier messages
                hub.join(sinks[number], ROOM)
                heads[number] = head
            case "admit", int(number):
                admit(number)
            case "wait", float(pause_s):
                now_s += pause_s
                hub.schedule.flush(now_s)
        collect()
    for number in list(heads):
        admit(number)
    for user in bus:
        while bus[user]:
            carry(user, repeat=False)
    for _ in range(5):
        now_s += OVERDUE_S + 1
        hub.schedule.flush(now_s)
        hub.note_overdue(now_s)
        for name in list(hub.gaps):
            hub.gaps.discard(name)
            gap = hub.channels[name].stream.missing()
            if gap is not None:
                hub.fill(
                    gap,
                    gap.after + 1,
                    [[b"%d" % position] for position in range(gap.after + 1, gap.through + 1)],
                    now_s,
                )
    collect()
    for number in sinks:
        positions = got[number]
        assert positions == sorted(set(positions)), "repeated, or out of order"
        must = set(range(opened_at[number] + 1, head + 1))
        assert must <= set(positions), f"lost: {must - set(positions)}"
        assert not positions or positions == list(range(positions[0], head + 1)), "a hole"


@pytest.mark.parametrize(("at_ms", "is_missed"), [(5, True), (3, False)], ids=["open by then", "opened since"])
def test_head_of_unknown_direct_room_reveals_a_lost_message(at_ms: int, is_missed: bool) -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    sink.opened_ms = 4
    hub.deliver(Delivery(user_channel("a"), DeliveryKind.DIRECT_HEAD, 7, "r", b"%d" % at_ms), 0.0)
    assert hub.directs.has_missed is is_missed


def test_head_of_direct_room_that_a_socket_has_seen_reveals_nothing() -> None:
    hub = Hub()
    user_socket(hub, "a")
    hub.deliver(direct(7, "a"), 0.0)
    hub.deliver(Delivery(user_channel("a"), DeliveryKind.DIRECT_HEAD, 7, "r", b"5"), 0.0)
    assert not hub.directs.has_missed
    assert not hub.gaps


def test_message_after_lost_one_is_withheld_until_that_was_fetched() -> None:
    hub = Hub()
    sink = user_socket(hub, "a")
    sink.opened_ms = 4
    hub.deliver(Delivery(user_channel("a"), DeliveryKind.DIRECT_HEAD, 1, "r", b"5"), 0.0)
    hub.deliver(direct(2, "a"), 0.0)
    hub.schedule.flush(0.0)
    assert hub.directs.has_missed
    assert room_channel("r") not in hub.channels
    hub.directs.catch_up("a", "r", [DirectMessagePosition(rev=rev, created_at_ms=5) for rev in (1, 2)], 0.0)
    hub.directs.release(0.0)
    gap = hub.channels[room_channel("r")].stream.missing()
    assert gap is not None
    assert (gap.after, gap.through) == (0, 1)
