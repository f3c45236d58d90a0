"""Evictions: a removed user's sockets receive the room up to the removal, then their farewell, and nothing after it."""

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.fanout.bindings import ShardBindings
from gateway.fanout.hub import Hub
from gateway.fanout.membership import ChannelMembership
from shared.bus.delivery import Delivery, DeliveryKind, EndReason, Eviction, user_channel
from tests.unit.gateway.fanout.hub_support import ROOM, RecordingSink, go_live, go_live_unordered, listener, message

FAREWELL = (
    '{"type":"unsubscribed","data":{"channel":"chatroom","chatroomId":"r","reason":"removed"}}'  # of every socket
)
REMOVED = EndReason.REMOVED


class KeptBindings:
    """Bindings of shards, which no test here looks at."""

    def release(self, name: str) -> None:
        pass


def rooms(hub: Hub) -> ChannelMembership:
    return ChannelMembership(hub, cast(ShardBindings, KeptBindings()))


def bring(hub: Hub, *positions: int) -> None:
    for position in positions:
        hub.deliver(message(position), 0.0)


def test_eviction_waits_for_the_entry_and_those_before() -> None:
    hub = Hub()
    membership, sink = rooms(hub), listener(hub, "u")
    other = listener(hub, "other")
    membership.evict("r", "u", 3, REMOVED)
    bring(hub, 2, 3, 4)
    membership.finish_evictions()
    assert sink.got == []
    bring(hub, 1)
    membership.finish_evictions()
    assert sink.got == ["1", "2", "3", FAREWELL]
    assert sink.ended == [ROOM]
    bring(hub, 5)
    hub.schedule.flush(1.0)
    assert (sink.got[4:], other.got) == ([], ["1", "2", "3", "4", "5"])


def test_eviction_without_a_reason_ends_the_subscription_silently() -> None:
    hub = Hub()
    membership, sink = rooms(hub), listener(hub, "u")
    membership.evict("r", "u", 1, None)
    bring(hub, 1, 2)
    membership.finish_evictions()
    assert (sink.got, sink.ended) == (["1"], [ROOM])


def test_eviction_whose_entry_was_delivered_takes_effect_at_once() -> None:
    hub = Hub()
    membership, sink = rooms(hub), listener(hub, "u")
    bring(hub, 1)
    membership.evict("r", "u", 1, REMOVED)
    assert sink.got == ["1", FAREWELL]
    assert ROOM not in hub.channels


def test_repeated_eviction_spares_a_socket_that_rejoined() -> None:
    hub = Hub()
    membership, sink = rooms(hub), listener(hub, "u", 5)
    membership.evict("r", "u", 4, REMOVED)
    hub.suspend(ROOM, 1)
    membership.evict("r", "u", 4, REMOVED)
    hub.channels[ROOM].pass_check(sink, 1, 5, 0.0)
    bring(hub, 6)
    hub.schedule.flush(1.0)
    assert (sink.got, sink.ended) == (["6"], [])


def test_socket_that_went_live_after_the_removal_stays() -> None:
    hub = Hub()
    membership, other, again = rooms(hub), listener(hub, "other"), RecordingSink("u")
    membership.evict("r", "u", 2, REMOVED)
    hub.join(again, ROOM)
    assert go_live(hub, again, ROOM, 3, [], 0.0)
    bring(hub, 1, 2, 3, 4)
    membership.finish_evictions()
    hub.schedule.flush(1.0)
    assert (again.got, other.got) == (["4"], ["1", "2", "3", "4"])


def test_waiting_socket_is_evicted_at_once() -> None:
    hub = Hub()
    membership, joining, suspended = rooms(hub), RecordingSink("u"), listener(hub, "u")
    hub.suspend(ROOM, 1)
    hub.join(joining, ROOM)
    membership.evict("r", "u", 4, REMOVED)
    for sink in (joining, suspended):
        assert (sink.got, sink.ended) == ([FAREWELL], [ROOM])
    assert not go_live(hub, joining, ROOM, 3, [], 0.0)


def test_unsubscribed_sockets_are_notified_of_a_removal_once() -> None:
    hub = Hub()
    membership, subscribed, elsewhere = rooms(hub), listener(hub, "u"), RecordingSink("u")
    for sink in (subscribed, elsewhere):
        hub.join(sink, user_channel("u"))
        go_live_unordered(hub, sink, user_channel("u"))
    for before_ms in (0, 1):  # the removal is repeated a second later
        removal = Eviction(user_id="u", chatroom_id="r", opened_before_ms=before_ms, reason=REMOVED)
        membership.notify_removed(removal, 1)
    assert (subscribed.got, elsewhere.got) == ([], [FAREWELL])
    membership.evict("r", "u", 1, REMOVED)
    bring(hub, 1)
    membership.finish_evictions()
    assert (subscribed.got, elsewhere.got) == (["1", FAREWELL], [FAREWELL])


def test_repeated_removal_and_invitation_spare_sockets_that_have_opened_since() -> None:
    hub, own = Hub(), user_channel("u")
    membership, before, since = rooms(hub), RecordingSink("u"), RecordingSink("u")
    before.opened_ms, since.opened_ms = 999, 1000
    for sink in (before, since):
        hub.join(sink, own)
        go_live_unordered(hub, sink, own)
    removal = Eviction(user_id="u", chatroom_id="r", opened_before_ms=1000, reason=REMOVED)
    membership.notify_removed(removal, 1)
    hub.deliver(Delivery(own, DeliveryKind.UNORDERED, 1000, "r/2", b"invited"), 0.0)
    assert (before.got, since.got) == ([FAREWELL, "invited"], [])


@given(
    removed_at=st.integers(1, 8),
    lines=st.lists(st.integers(1, 8), max_size=30),
    early=st.booleans(),
)
def test_no_order_of_lines_shows_anything_after_the_removal(removed_at: int, lines: list[int], early: bool) -> None:
    hub = Hub()
    membership, sink, other = rooms(hub), listener(hub, "u"), listener(hub, "other")
    for position in [*lines, *range(1, 9)]:  # at last, the gap is filled
        if position == removed_at and early:
            membership.evict("r", "u", removed_at, REMOVED)
        bring(hub, position)
        if position == removed_at and not early:  # as owners of earlier versions send it
            membership.evict("r", "u", removed_at, REMOVED)
        membership.finish_evictions()
    hub.schedule.flush(1.0)
    assert other.got == [str(position) for position in range(1, 9)]
    shown = [text for text in sink.got if text != FAREWELL]
    assert shown[:removed_at] == [str(position) for position in range(1, removed_at + 1)]
    if early:
        assert sink.got == [*shown[:removed_at], FAREWELL]
